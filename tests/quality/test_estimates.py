"""Estimates and their replicates: what real images get, and how sure each metric and each difference is."""

from typing import cast

import pytest
import torch
from torch import Tensor

from cgan.quality.accuracies import drawn_accuracies, heldout_accuracies
from cgan.quality.distances import distance_of_training, frechet_estimate
from cgan.quality.estimates import REPLICATES, Estimate, wilson_replicates
from cgan.quality.evaluation_set import EvaluationSet
from cgan.quality.judge import Judge, Prediction
from cgan.quality.judge_bias import deviation_of_mean, memorisation_bias, subtract_bias
from cgan.quality.metrics import frechet_distance
from cgan.quality.neighbours import neighbour_estimates, neighbours_of_training


def points(count: int, seed: int, dimension: int = 3, mean: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=random) + mean


def evaluation_set_of(
    real: Tensor,
    trained: Tensor,
    asked: Tensor,
    seed: int = 1,
    groups: Tensor | None = None,
    labels: Tensor | None = None,
) -> EvaluationSet:
    """Of features made by hand: the network that makes them is not asked, and judges class 0 always. Real
    images are of these labels, or as the training images of all classes asked for, in turn."""
    classes = int(asked.max()) + 1
    logits = torch.eye(classes)[:1].expand(len(real), -1)
    in_turn, trained_labels = (torch.arange(len(part)) % classes for part in (real, trained))
    return EvaluationSet(
        judge=cast(Judge, None),
        heldout=Prediction(real, logits),
        heldout_labels=in_turn if labels is None else labels,
        training_features=trained,
        training_labels=trained_labels,
        drawn_labels=asked,
        seed=seed,
        heldout_groups=groups,
    )


def set_estimates(evaluation_set: EvaluationSet, features: Tensor) -> dict[str, Estimate]:
    """The metrics that compare sets, of drawings with these features."""
    return {
        "fid_judge": frechet_estimate(evaluation_set, features, "drawn"),
        **neighbour_estimates(evaluation_set, features, "drawn"),
    }


def training_estimates(evaluation_set: EvaluationSet) -> dict[str, Estimate]:
    distance = distance_of_training(evaluation_set)
    return {"fid_judge": distance, **neighbours_of_training(evaluation_set)}


def estimates_of(
    evaluation_set: EvaluationSet, features: Tensor, right: Tensor
) -> dict[str, Estimate]:
    """As if the judge saw these features, and named the class where `right` says so."""
    judged = (evaluation_set.drawn_labels + ~right) % 3
    sets = set_estimates(evaluation_set, features[evaluation_set.rows_in_mix])
    return {**drawn_accuracies(evaluation_set, judged), **sets}


def test_the_memorisation_bias_is_taken_off_real_images() -> None:
    """As if the judge drew training images together: unseen ones lie as those of the hold-out do. Where it
    memorised nothing, nothing is taken off."""
    asked = torch.arange(2000) % 3
    off = []
    for seed in range(4):
        real, unseen, training = (points(600, 3 * seed + n, 8) for n in range(3))
        for features, memorised in ((training, False), (0.85 * training, True)):
            evaluation_set = evaluation_set_of(real, features, asked, seed)
            metrics = set_estimates(evaluation_set, unseen)
            biased = training_estimates(evaluation_set)
            real_scores = subtract_bias(biased, memorisation_bias(evaluation_set))
            for key, found in metrics.items():
                low, high = (found - real_scores[key]).interval
                off.append(not low <= 0 <= high)
            low, high = (metrics["fid_judge"] - biased["fid_judge"]).interval
            assert (high < 0) is memorised, (seed, low, high)
    assert sum(off) <= 3  # of 24, at 95 % each


@pytest.mark.parametrize(("images", "sets"), [(10, 1), (10, 16), (20, 4)])
def test_the_mean_bias_varies_by_the_hold_out_and_the_pool(images: int, sets: int) -> None:
    """5,000 pools of 40 training images, of which each set has some; in variances, the hold-out gives 1 and
    one set's training images 2."""
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
    evaluation_set = evaluation_set_of(*parts, torch.arange(60) % 3)
    assert memorisation_bias(evaluation_set) == {}
    biased = training_estimates(evaluation_set)
    for key, found in subtract_bias(biased, {}).items():
        assert found.value == biased[key].value


def test_replicates_spread_as_independent_samples_do() -> None:
    """A share p of 600: by √(p(1-p)/n). A distance: as that of other samples of the same two populations. And
    by the seed alone."""
    asked, right = torch.arange(600) % 3, points(600, 7)[:, 0] > -0.8
    share = right.double().mean().item()
    real, trained, drawn = (points(600, seed, mean=seed / 4) for seed in (0, 1, 2))
    one, same, other = (
        estimates_of(evaluation_set_of(real, trained, asked, seed), drawn, right)
        for seed in (1, 1, 2)
    )
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
    """Such as one sorted by class. Groups of neighbours are resampled: each of one class, they would deviate
    further."""
    labels = torch.arange(600) % 3
    real, trained, drawn = (points(600, seed) + 4.0 * labels[:, None] for seed in (0, 1, 2))
    named = torch.where(points(600, 3)[:, 0] > 0, labels, (labels + 1) % 3)
    named[labels == 0] = 0  # one class is always right
    spreads = []
    mixed = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    for order in (mixed, labels.argsort(stable=True)):
        evaluation_set = evaluation_set_of(real[order], trained, labels, labels=labels[order])
        right = heldout_accuracies(evaluation_set, named[order])["conditional_accuracy"]
        found = frechet_estimate(evaluation_set, drawn, "drawn"), right
        spreads.append([float(each.replicates.std()) for each in found])
    assert spreads[1] == pytest.approx(spreads[0], rel=0.25)


def test_an_interval_holds_the_truth_in_nineteen_of_twenty() -> None:
    """Replicates spread around what was measured as that does around the truth, 0."""
    random = torch.Generator().manual_seed(1)
    measured = torch.randn(4000, generator=random, dtype=torch.float64)
    spread = torch.randn(4000, REPLICATES, generator=random, dtype=torch.float64)
    intervals = [
        Estimate.of(float(value), value + around).interval
        for value, around in zip(measured, spread, strict=True)
    ]
    missed = sum(low > 0 or high < 0 for low, high in intervals) / len(intervals)
    assert 0.04 < missed < 0.055  # by percentiles of 200 replicates: .06


def test_a_part_of_nothing_passes_no_limit() -> None:
    """Such as coverage, where that of real images is none: whatever the drawings have."""
    some, none = Estimate(0.5, torch.full((9,), 0.5)), Estimate(0.0, torch.zeros(9))
    assert (some / none).interval == (none / none).interval == (0.0, 0.0)
    assert (some / some).interval == (1.0, 1.0)


@pytest.mark.parametrize(("other", "different"), [(-0.3, False), (0.6, True)])
def test_a_difference_of_generators_is_found_where_there_is_one(
    other: float, different: bool
) -> None:
    """One lies at .3, the other as far off on the other side, or twice as far. An interval of the latents
    alone calls most equally good pairs different: to one hold-out, one of them is nearer."""
    worse = better = 0
    asked, axis = torch.arange(400) % 3, torch.eye(4)[0]
    for pair in range(40):
        first, second, real, trained = (points(400, 4 * pair + n, 4) for n in range(4))
        evaluation_set = evaluation_set_of(real, trained, asked, seed=pair)
        a = frechet_estimate(evaluation_set, first + 0.3 * axis, "drawn")
        b = frechet_estimate(evaluation_set, second + other * axis, "drawn")
        low, high = (b - a).interval
        worse += low > 0
        better += high < 0
    assert better == 0 and worse >= 36 if different else worse + better <= 2


@pytest.mark.parametrize("count", [40, 100])
def test_recall_and_coverage_say_how_far_others_would_be(count: int) -> None:
    """Other real images, whose neighbours make the radii, and other drawings: the deviation that is said is
    what 24 such sets have."""
    found = []
    for seed in range(24):
        real, trained = points(count, 3 * seed, 8), points(count, 3 * seed + 1, 8)
        drawn = 1.05 * points(10 * count, 3 * seed + 2, 8)
        evaluation_set = evaluation_set_of(real, trained, torch.arange(len(drawn)) % 3)
        found.append(neighbour_estimates(evaluation_set, drawn, "drawn"))
    for key in found[0]:
        values = torch.tensor([each[key].value for each in found])
        estimated = torch.tensor([float(each[key].replicates.std()) for each in found]).mean()
        assert 0.75 < estimated / values.std() < 2, key


def test_where_all_or_none_count_the_interval_is_wilsons() -> None:
    """Newcombe 1998, table I, method 3: 0 of 20. And a share of twelve images."""
    for value, interval in ((0.0, (-0.1611, 0.1611)), (1.0, (0.8389, 1.1611))):
        found = Estimate.of(value, wilson_replicates(value, 20)).interval
        assert found == pytest.approx(interval, abs=1e-4)
    real = points(12, 0, 1)
    evaluation_set = evaluation_set_of(real, real, torch.arange(24) % 3)
    coverage = neighbour_estimates(evaluation_set, torch.cat([real, real]), "drawn")["coverage"]
    assert coverage.value == 1 and coverage.interval[0] == pytest.approx(0.757, abs=0.01)


def test_what_the_jackknife_leaves_out_is_of_all_classes() -> None:
    """Ten classes come in turn, and the drawings of one are off. Were each part a class, coverage would
    seem to vary by a tenth; it is that of any other drawings of these classes, .9."""
    labels = torch.arange(200) % 10
    places = 20.0 * torch.eye(10)[labels]
    real, trained, drawn = (points(200, seed, 10) + places for seed in (0, 1, 2))
    drawn[labels == 0] -= 40.0
    evaluation_set = evaluation_set_of(real, trained, labels)
    features = drawn[evaluation_set.rows_in_mix]
    coverage = neighbour_estimates(evaluation_set, features, "drawn")["coverage"]
    assert 0.8 < coverage.value <= 0.9 and float(coverage.replicates.std()) < 0.05


def test_of_fewer_than_ten_groups_images_are_resampled() -> None:
    """One group would have one bin, and no noise at all."""
    real, trained, drawn = (points(120, seed) for seed in range(3))
    labels = torch.arange(120) % 3
    alone, one, nine, ten = (
        evaluation_set_of(real, trained, labels, groups=groups)
        for groups in (None, labels * 0, torch.arange(120) % 9, torch.arange(120) % 10)
    )
    bins = [len(each.heldout_cuts) + 1 for each in (alone, one, nine, ten)]
    assert bins == [120, 120, 120, 10]
    expected, found = (set_estimates(each, drawn) for each in (alone, one))
    for key, estimate in expected.items():
        assert torch.equal(found[key].replicates, estimate.replicates), key


def test_near_copies_in_a_group_say_no_more_than_one_of_them() -> None:
    """Of 120 held-out images each is there five times: the deviation is that of 120 images, which is what
    other such hold-outs have."""
    grouped, alone = list[Estimate](), list[Estimate]()
    for seed in range(12):
        once, trained, drawn = (points(n, 3 * seed + k) for k, n in enumerate((120, 600, 600)))
        # A class has 40 of them, all in its groups; `evaluation_set_of` takes the classes in turn.
        rows = (torch.arange(600) // 15 * 3 + torch.arange(600) % 3) % 120
        real = once[rows] + 0.01 * points(600, 1000 + seed)
        for found, groups in ((grouped, rows), (alone, None)):
            evaluation_set = evaluation_set_of(real, trained, torch.arange(600) % 3, seed, groups)
            found.append(frechet_estimate(evaluation_set, drawn + 0.5, "drawn"))
    said, too_little = (
        torch.stack([each.replicates.std() for each in found]).mean() for found in (grouped, alone)
    )
    assert 0.75 < said / torch.tensor([each.value for each in grouped]).std() < 1.6
    assert said > 1.5 * too_little
