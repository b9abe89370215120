"""Intervals of metrics and of differences, against published or closed forms."""

import statistics

import pytest
import torch

from cgan.evaluation import METRICS, context_differences
from cgan.quality.intervals import critical_t, difference_interval, difference_of_means, falls_short
from cgan.quality.proportions import proportion_interval


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 and 48 of 80: method 10 of the paper, table II, case (a): 0.0524 to 0.3339."""
    low, high = difference_interval(
        48 / 80, proportion_interval(48 / 80, 80), 56 / 70, proportion_interval(56 / 70, 70)
    )
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_contexts_may_differ_in_the_generator_and_in_its_drawings() -> None:
    context = {"reference_images": 3, "generator_digest": "a", "seed": 1, "drawn_images": 9}
    for other, differ in (
        (context | {"generator_digest": "b", "drawn_images": 8}, {}),
        ({"seed": 2}, {"seed": (1, 2), "reference_images": (3, None)}),
    ):
        assert context_differences(context, other) == differ


def test_a_metric_that_depends_on_the_number_of_images_is_compared_at_it() -> None:
    a, b = ({"distance_images": n, "neighbour_images": 9} for n in (300, 400))
    assert context_differences(a, b, "fid_judge") == {"distance_images": (300, 400)}
    assert not context_differences(a, b)
    assert not context_differences(a, b, "recall") and not context_differences(a, b, "copies")
    b = {"distance_images": 300, "neighbour_images": 8}
    assert [key for key in METRICS if context_differences(a, b, key)] == ["coverage", "recall"]


def test_the_interval_of_a_difference_of_means_is_welchs() -> None:
    """Of equal variances and counts: t with all degrees of freedom, times √(2 s² / n)."""
    for a, b, t in (
        ([0.21, 0.22, 0.20], [0.11, 0.12, 0.10], 2.7764),  # 4 degrees of freedom
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, 4.5, 5.5], 2.3060),  # 8
    ):
        change, (low, high) = difference_of_means(a, b)
        reach = t * (2 * statistics.variance(a) / len(a)) ** 0.5
        assert change == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
        assert (low, high) == pytest.approx((change - reach, change + reach), rel=1e-4)
    # Of unequal ones by Welch and Satterthwaite: 2.1597 degrees of freedom.
    _, (low, high) = difference_of_means([0.2, 0.3, 0.25], [0.11, 0.12, 0.10])
    assert high - low == pytest.approx(2 * critical_t(2.1597) * (0.0026 / 3) ** 0.5, rel=1e-4)
    assert difference_of_means([1.0, 1.0], [2.0, 2.0]) == (1.0, (1.0, 1.0))


def test_students_t_is_that_of_the_tables_at_any_level_and_for_several_means() -> None:
    """National Institute of Standards and Technology, Engineering Statistics Handbook, 1.3.6.7.2."""
    for freedom, level, many, expected in (
        (1, 0.95, 1, 12.706),
        (4, 0.99, 1, 4.604),
        (30, 0.95, 1, 2.042),
        (100, 0.95, 5, 2.626),  # as one at 99 %
    ):
        assert critical_t(freedom, level, many) == pytest.approx(expected, abs=5e-4)


def stopped(accuracies: list[float], drawings: int, repeats: int = 100) -> float:
    """How often a generator of such classes has one that falls short of .93."""
    random = torch.Generator().manual_seed(0)
    total = torch.full((len(accuracies),), drawings)
    share = torch.tensor(accuracies, dtype=torch.float64).expand(repeats, -1)
    rights = torch.binomial(share * 0 + drawings, share, generator=random).long()
    return sum(bool(falls_short(right, total, 0.93).any()) for right in rights) / repeats


@pytest.mark.parametrize("classes", [1, 2, 10, 100])
def test_of_classes_at_the_limit_one_in_twenty_falls_short(classes: int) -> None:
    assert stopped([0.93] * classes, 1000, repeats=400) <= 0.05
    assert stopped([0.97] * classes, 100) <= 0.01


@pytest.mark.parametrize(("classes", "drawings"), [(2, 100), (10, 1000), (100, 100)])
def test_one_bad_class_falls_short_among_good_ones(classes: int, drawings: int) -> None:
    good = [0.995] * (classes - 1)
    assert stopped([0.75, *good], drawings, 50) >= 0.95
    assert drawings == 100 or stopped([0.9, *good], drawings) >= 0.7


def test_falling_short_is_bonferronis_of_wilsons() -> None:
    """Of two classes z is 2.2414, for which the upper end of 85 of 100 is .9136, of 170 of 200 .8968."""
    counts = torch.tensor([85, 100, 0]), torch.tensor([100, 100, 0])
    for limit, short in ((0.9130, False), (0.9142, True)):
        assert falls_short(*counts, limit).tolist() == [short, False, False]


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_where_one_side_alone_has_no_spread_the_other_s_counts() -> None:
    """A sampler's seeds beside a training's. One degree of freedom."""
    _, interval = difference_of_means([1.0, 1.0], [1.0, 3.0])
    assert interval == pytest.approx((1 - 12.706, 1 + 12.706), rel=1e-4)
