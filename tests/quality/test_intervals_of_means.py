"""The interval of a difference of means, over seeds."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_ind

from cgan.quality.intervals import difference_of_means


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.21, 0.22, 0.20], [0.11, 0.12, 0.10]),  # 4 degrees of freedom
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, 4.5, 5.5]),  # 8
    ],
)
def test_it_is_welchs(a: list[float], b: list[float]) -> None:
    change, (low, high) = difference_of_means(a, b)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert change == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=2e-3)


def test_where_the_degrees_of_freedom_are_no_whole_number_it_is_rather_too_wide() -> None:
    a, b = [0.2, 0.3, 0.25], [0.11, 0.12, 0.10]
    _, (low, high) = difference_of_means(a, b)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert low < expected.low and high > expected.high


def test_values_without_spread_have_a_difference_without_any() -> None:
    change, ends = difference_of_means([1.0, 1.0], [2.0, 2.0])
    assert change == 1.0 and ends == (1.0, 1.0)
