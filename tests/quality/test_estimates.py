"""Estimates and their replicates: what real images get, and how sure each metric and each difference is."""

from statistics import fmean, stdev
from typing import cast

import pytest
import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.params.sections import EvaluateParams
from cgan.quality.accuracies import accuracy_estimates
from cgan.quality.conditions import Conditions, Source
from cgan.quality.feature_metrics import Gaussians, deviation_of_mean
from cgan.quality.intervals import REPLICATES, Estimate, wilson_replicates
from cgan.quality.judge import Judge, Prediction, frechet_distance


def points(count: int, seed: int, dimension: int = 3, mean: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=random) + mean


def conditions_of(
    real: Tensor,
    trained: Tensor,
    asked: Tensor,
    seed: int = 1,
    groups: Tensor | None = None,
    labels: Tensor | None = None,
) -> Conditions:
    """Of features made by hand: the network that makes them is not asked, and judges class 0 always. Images
    are of these labels, or of all classes in turn."""
    classes = int(asked.max()) + 1
    in_turn, trained_labels = (torch.arange(len(part)) % classes for part in (real, trained))
    labels = in_turn if labels is None else labels
    held_out = Images(torch.full((len(real), 1, 8, 8), 9), labels, None, groups)
    images, judge, params = (held_out, held_out), cast(Judge, None), EvaluateParams(seed=seed)
    heldout = Prediction(real, torch.eye(classes)[:1].expand(len(real), -1))
    return Conditions(judge, *images, params, heldout, trained, trained_labels, asked)


def distance_of(features: Tensor, conditions: Conditions, source: Source = "drawn") -> Estimate:
    gaussians = Gaussians.fit(features[: conditions.distance_images], conditions.bins[source])
    return conditions.held_out_gaussians.distance(gaussians)


def test_the_memorisation_bias_is_taken_off_real_images() -> None:
    """As if the judge drew training images together. Where it memorised nothing, nothing is taken off."""
    missed = 0
    for seed in range(2):
        real, unseen, training = (points(300, 3 * seed + n, 8) for n in range(3))
        for features, memorised in ((training, False), (0.85 * training, True)):
            conditions = conditions_of(real, features, torch.arange(1200) % 3, seed)
            for key, drawn in conditions.feature_estimates(unseen, "drawn").items():
                low, high = (drawn - conditions.real[key]).interval
                missed += not low <= 0 <= high
                if key == "fid_judge":
                    _, high = (drawn - distance_of(features, conditions, "training")).interval
                    assert (high < 0) is memorised, (seed, high)
    assert missed <= 2  # of 12, at 95 % each


@pytest.mark.parametrize(("images", "sets"), [(10, 1), (10, 16), (20, 4)])
def test_the_mean_bias_varies_by_the_hold_out_and_the_pool(images: int, sets: int) -> None:
    """5,000 pools of 40 training images; in variances, the hold-out gives 1, one set's training images 2."""
    random = torch.Generator().manual_seed(0)
    pools = torch.randn(5_000, 40, generator=random)
    picks = torch.rand(sets, 5_000, 40, generator=random).argsort(dim=2)[:, :, :images]
    of_training = torch.stack([pools.gather(1, rows).mean(dim=1) for rows in picks]).mean(dim=0)
    of_heldout = torch.randn(5_000, generator=random)
    excess = of_heldout + (2 * images) ** 0.5 * of_training
    expected = float(excess.std()) / 3**0.5
    assert deviation_of_mean(sets, images / 40) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(("held", "trained"), [(90, 600), (600, 90)])
def test_with_too_few_images_no_bias_is_taken_off(held: int, trained: int) -> None:
    parts = points(held, held), points(trained, trained)
    conditions = conditions_of(*parts, torch.arange(60) % 3)
    assert conditions.bias == {}
    assert conditions.real["fid_judge"].value == distance_of(parts[1], conditions).value


def test_replicates_spread_as_independent_samples_do() -> None:
    """A share p of 600: by √(p(1-p)/n). A distance: as that of other samples. And by the seed alone."""
    asked, right = torch.arange(600) % 3, points(600, 7)[:, 0] > -0.8
    share = right.double().mean().item()
    real, trained, drawn = (points(600, seed, mean=seed / 4) for seed in (0, 1, 2))

    def estimates_of(seed: int) -> dict[str, Estimate]:
        conditions = conditions_of(real, trained, asked, seed)
        accuracies = accuracy_estimates(right, asked, conditions.bins["all drawn"])
        return {**accuracies, **conditions.feature_estimates(drawn, "drawn")}

    one, same, other = map(estimates_of, (1, 1, 2))
    again = torch.tensor(
        [frechet_distance(points(600, 2 * n), points(600, 2 * n + 1, mean=0.5)) for n in range(200)]
    )
    spread = {key: float(estimate.replicates.std()) for key, estimate in one.items()}
    assert spread["fid_judge"] == pytest.approx(float(again.std()), rel=0.25)
    closed_form = (share * (1 - share) / 600) ** 0.5
    assert spread["conditional_accuracy"] == pytest.approx(closed_form, rel=0.25)
    assert 0 < spread["coverage"] < 0.05
    for key, estimate in one.items():
        assert len(estimate.replicates) == REPLICATES
        assert estimate.replicates.mean() == pytest.approx(estimate.value)
        assert torch.equal(estimate.replicates, same[key].replicates)
        assert not torch.equal(estimate.replicates, other[key].replicates)


def test_a_hold_out_in_any_order_gives_the_same_intervals() -> None:
    """Such as one sorted by class: groups of neighbours that are of one class would deviate further."""
    labels = torch.arange(600) % 3
    real, trained, drawn = (points(600, seed) + 4.0 * labels[:, None] for seed in (0, 1, 2))
    named = torch.where(points(600, 3)[:, 0] > 0, labels, (labels + 1) % 3)
    named[labels == 0] = 0  # one class is always right
    spreads = []
    mixed = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    for order in (mixed, labels.argsort(stable=True)):
        conditions = conditions_of(real[order], trained, labels, labels=labels[order])
        right = conditions.held_out_accuracies(named[order])["conditional_accuracy"]
        found = distance_of(drawn, conditions), right
        spreads.append([float(each.replicates.std()) for each in found])
    assert spreads[1] == pytest.approx(spreads[0], rel=0.25)


@pytest.mark.parametrize(("other", "different"), [(-0.3, False), (0.6, True)])
def test_a_difference_of_generators_is_found_where_there_is_one(
    other: float, different: bool
) -> None:
    """One lies at .3, the other as far off on the other side, or twice as far."""
    worse = better = 0
    asked, axis = torch.arange(400) % 3, torch.eye(4)[0]
    for pair in range(25):
        first, second, real, trained = (points(400, 4 * pair + n, 4) for n in range(4))
        conditions = conditions_of(real, trained, asked, seed=pair)
        a = distance_of(first + 0.3 * axis, conditions)
        b = distance_of(second + other * axis, conditions)
        low, high = (b - a).interval
        worse += low > 0
        better += high < 0
    assert better == 0 and worse >= 22 if different else worse + better <= 2


def test_recall_and_coverage_say_how_far_others_would_be() -> None:
    """The deviation that is said is what 24 sets of other real images and drawings have."""
    found = []
    for seed in range(24):
        real, trained, drawn = (points(n, 3 * seed + k, 8) for k, n in enumerate((40, 40, 400)))
        conditions = conditions_of(real, trained, torch.arange(400) % 3)
        found.append(conditions.feature_estimates(1.05 * drawn, "drawn"))
    for key in ("recall", "coverage"):
        said = fmean(float(each[key].replicates.std()) for each in found)
        assert 0.75 < said / stdev(each[key].value for each in found) < 2, key


def test_where_all_or_none_count_the_interval_is_wilsons() -> None:
    """Newcombe 1998, table I, method 3: 0 of 20. And a share of twelve images."""
    for value, interval in ((0.0, (-0.1611, 0.1611)), (1.0, (0.8389, 1.1611))):
        found = Estimate.centred(value, wilson_replicates(value, 20))
        assert found.interval == pytest.approx(interval, abs=1e-4)
        score = found.score(found - found)  # as an evaluation keeps it
        restored = Estimate.restored(score.value, score.deviations)
        assert restored.interval == pytest.approx(interval, abs=1e-4)
        assert Estimate.restored(score.real, score.real_deviations).interval == (0, 0)
    real = points(12, 0, 1)
    conditions = conditions_of(real, real, torch.arange(24) % 3)
    coverage = conditions.feature_estimates(torch.cat([real, real]), "drawn")["coverage"]
    assert coverage.value == 1 and coverage.interval[0] == pytest.approx(0.757, abs=0.01)


def test_what_the_jackknife_leaves_out_is_of_all_classes() -> None:
    """The drawings of one of ten are off: were each part a class, coverage would vary by a tenth."""
    labels = torch.arange(200) % 10
    places = 20.0 * torch.eye(10)[labels]
    real, trained, drawn = (points(200, seed, 10) + places for seed in (0, 1, 2))
    drawn[labels == 0] -= 40.0
    conditions = conditions_of(real, trained, labels)
    features = drawn[conditions.rows_in_mix]
    coverage = conditions.feature_estimates(features, "drawn")["coverage"]
    assert 0.8 < coverage.value <= 0.9 and float(coverage.replicates.std()) < 0.05


def test_of_fewer_than_ten_groups_images_are_resampled() -> None:
    """One group would have one bin, and no noise at all."""
    rows = torch.arange(120)
    for groups, bins in ((None, 120), (rows * 0, 120), (rows % 9, 120), (rows % 10, 10)):
        conditions = conditions_of(points(120, 0), points(120, 1), rows % 3, groups=groups)
        assert conditions.bins["held out"].weights.shape[1] == bins


def test_near_copies_in_a_group_say_no_more_than_one_of_them() -> None:
    """Of 120 held-out images each is there five times: the deviation is that of 120 images."""
    grouped, alone = list[Estimate](), list[Estimate]()
    # A class has 40 of them, all in its groups; `conditions_of` takes the classes in turn.
    rows = (torch.arange(600) // 15 * 3 + torch.arange(600) % 3) % 120
    for seed in range(12):
        once, trained, drawn = (points(n, 3 * seed + k) for k, n in enumerate((120, 600, 600)))
        real = once[rows] + 0.01 * points(600, 1000 + seed)
        for found, groups in ((grouped, rows), (alone, None)):
            conditions = conditions_of(real, trained, torch.arange(600) % 3, seed, groups)
            found.append(distance_of(drawn + 0.5, conditions))
    said, too_little = (fmean(float(n.replicates.std()) for n in part) for part in (grouped, alone))
    assert 0.75 < said / stdev(each.value for each in grouped) < 1.6
    assert said > 1.5 * too_little
