"""Intervals of metrics and of differences, against published or closed forms."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from scipy.stats import ttest_ind

from cgan.quality.intervals import (
    difference,
    difference_of_means,
    passports_differ,
    share,
)

REPORT: dict[str, Any] = {
    "passport": {"drawn_images": 100, "draws": 3, "generator_digest": "a", "seed": 1}
}


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 and 48 of 80: method 10 of the paper, table II, case (a): 0.0524 to 0.3339."""
    low, high = difference(48 / 80, share(48 / 80, 80), 56 / 70, share(56 / 70, 70))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_passports_may_differ_in_the_generator_and_in_nothing_else() -> None:
    other = copy.deepcopy(REPORT)
    other["passport"]["generator_digest"] = "b"
    assert passports_differ(REPORT, other) == {}
    other["passport"]["seed"] = 2
    del other["passport"]["draws"]
    assert passports_differ(REPORT, other) == {"seed": (1, 2), "draws": (3, None)}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.21, 0.22, 0.20], [0.11, 0.12, 0.10]),  # 4 degrees of freedom
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, 4.5, 5.5]),  # 8
    ],
)
def test_the_interval_of_a_difference_of_means_is_welchs(a: list[float], b: list[float]) -> None:
    _, (low, high) = difference_of_means(a, b)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=2e-3)


def test_a_difference_of_means_is_rather_too_wide_and_without_spread_has_none() -> None:
    a, b = [0.2, 0.3, 0.25], [0.11, 0.12, 0.10]
    _, (low, high) = difference_of_means(a, b)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert low < expected.low and high > expected.high
    assert difference_of_means([1.0, 1.0], [2.0, 2.0]) == (1.0, (1.0, 1.0))
