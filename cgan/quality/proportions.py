"""Proportions, their 95 % intervals and those of their differences, for stages that do without torch, too."""

import math
from collections.abc import Sequence
from statistics import NormalDist

Z_95 = 1.959964


def wilson_interval(right: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Interval of a proportion, 95 % unless `z` says otherwise; stays within 0–1 and covers the truth about
    as often near both ends (Wilson, JASA 22, 1927)."""
    centre = (right + z * z / 2) / (total + z * z)
    half_width = z / (total + z * z) * math.sqrt(right * (total - right) / total + z * z / 4)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def joint_z(comparisons: int) -> float:
    """The `z` of an interval that is at 95 % for so many `comparisons` together (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.025 / comparisons)


def proportion_interval(value: float, count: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval of a share of `count` images."""
    return wilson_interval(round(value * count), count, z)


def mean_share(pairs: Sequence[tuple[int, int]]) -> tuple[float, tuple[float, float]]:
    """The mean of several proportions (right, total) and its 95 % interval.

    The intervals of the parts are put together as those of a difference are (Zou & Donner, Statistics in
    Medicine 27, 2008, eq. 5 and 6), so that a class of three images makes it as wide as it should be.
    """
    shares = [right / total for right, total in pairs]
    intervals = [wilson_interval(right, total) for right, total in pairs]
    mean = sum(shares) / len(shares)
    below, above = (
        math.hypot(*(share - end for share, end in zip(shares, ends, strict=True))) / len(shares)
        for ends in zip(*intervals, strict=True)
    )
    return mean, (mean - below, mean + above)


def difference_interval(
    a: float, of_a: tuple[float, float], b: float, of_b: tuple[float, float]
) -> tuple[float, float]:
    """Interval of b - a from those of both, which are taken for independent (Newcombe, Statistics in Medicine
    17, 1998, method 10): of drawings beside the same real images rather too wide than too narrow."""
    change = b - a
    low = change - math.hypot(b - of_b[0], of_a[1] - a)
    high = change + math.hypot(of_b[1] - b, a - of_a[0])
    return low, high
