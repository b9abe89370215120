"""Intervals of metrics and of differences, against published or closed forms."""

import pytest

from cgan.quality.intervals import (
    contexts_differ,
    difference,
    difference_of_means,
    share,
    student,
)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 and 48 of 80: method 10 of the paper, table II, case (a): 0.0524 to 0.3339."""
    low, high = difference(48 / 80, share(48 / 80, 80), 56 / 70, share(56 / 70, 70))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_contexts_may_differ_in_the_generator_and_in_nothing_else() -> None:
    context = {"draws": 3, "generator_digest": "a", "seed": 1}
    for other, differ in (
        (context | {"generator_digest": "b"}, {}),
        ({"generator_digest": "b", "seed": 2}, {"seed": (1, 2), "draws": (3, None)}),
    ):
        pair = ({"measurement_context": each} for each in (context, other))
        assert contexts_differ(*pair) == differ


def test_the_interval_of_a_difference_of_means_is_welchs() -> None:
    from scipy.stats import ttest_ind  # takes a second

    for a, b in (
        ([0.21, 0.22, 0.20], [0.11, 0.12, 0.10]),  # 4 degrees of freedom
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, 4.5, 5.5]),  # 8
        ([0.2, 0.3, 0.25], [0.11, 0.12, 0.10]),  # between two
    ):
        _, (low, high) = difference_of_means(a, b)
        expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert difference_of_means([1.0, 1.0], [2.0, 2.0]) == (1.0, (1.0, 1.0))


def test_students_t_is_that_of_the_tables_at_any_level_and_for_several_means() -> None:
    """National Institute of Standards and Technology, Engineering Statistics Handbook, 1.3.6.7.2."""
    for freedom, level, many, expected in (
        (1, 0.95, 1, 12.706),
        (4, 0.99, 1, 4.604),
        (30, 0.95, 1, 2.042),
        (100, 0.95, 5, 2.626),  # as one at 99 %
    ):
        assert student(freedom, level, many) == pytest.approx(expected, abs=5e-4)
