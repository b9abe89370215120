"""What the classifiers' answers tell: the difference that drawings make, with its interval, and their worth.

A mean over the classes counts each class alike. The interval has two parts: which images happened to be
tested (their spread within each class, by unit), and which images, generator and seeds a round was trained
with (the rounds' spread). Where rounds are folds, that second part is widened for the images that folds
share in training: Nadeau and Bengio, Inference for the Generalization Error (Machine Learning 52, 2003).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgan.quality.intervals import STUDENT, Interval

DRAWN = "drawn"
NORMAL, CLEARER = 1.96, 1.31  # quantile of 95 %, and that of 99 % as a multiple of it
SIGNS = 6  # equal ones have a probability of 1/32


@dataclass(frozen=True)
class Outcome:
    """One round. `rows` int64 [N]: which of all tested images; `labels` int64 [N]; `units` int64 [N]: equal
    ones belong together; `right`: by method, bool [N]."""

    rows: Tensor
    labels: Tensor
    units: Tensor
    right: Mapping[str, Tensor]

    def mean(self, method: str) -> float:
        """Of the classes' accuracies."""
        right = self.right[method].double()
        return statistics.fmean(float(right[self.labels == n].mean()) for n in self.labels.unique())


@dataclass(frozen=True)
class Difference:
    """Accuracies without and with drawings, and the 95 % interval of their difference."""

    without: float
    with_drawings: float
    interval: Interval
    tested: int

    @property
    def verdict(self) -> str:
        """Harm has to be clearer, by a 99 % interval: the best of several methods was a little lucky."""
        change, (low, high) = self.with_drawings - self.without, self.interval
        if low > 0:
            return "help"
        return "harm" if change + CLEARER * (high - change) < 0 else "no difference"


@dataclass(frozen=True)
class Effect:
    """Drawings beside the best of the methods that cost nothing: the mean over classes, and each class."""

    base: str  # that method
    overall: Difference
    classes: dict[int, Difference]


def effect(rounds: Sequence[Outcome], methods: Sequence[str], folded: bool) -> Effect:
    """Beside the best of `methods`, those without drawings, by the mean over classes of all rounds together.

    `rounds`: two at least. `folded`: each image is tested in one round, by networks that were trained on the
    other rounds' images. To choose the method in each round by the others is no way out: what is best in all
    folds but one is worse in that one, for together they are the same images.
    """
    pooled = {name: _pooled(rounds, name) for name in methods}
    base = max(methods, key=lambda name: pooled[name].mean())
    labels = pooled[base].labels.unique().tolist()
    return Effect(
        base,
        _difference(pooled[base], rounds, base, labels, folded),
        {label: _difference(pooled[base], rounds, base, [label], folded) for label in labels},
    )


@dataclass(frozen=True)
class _Pooled:
    """By tested image: how often it was right without and with drawings, float64 [N]."""

    labels: Tensor
    units: Tensor
    without: Tensor
    with_drawings: Tensor

    def mean(self) -> float:
        """Of the classes' accuracies without drawings."""
        labels = self.labels.unique()
        return statistics.fmean(float(self.without[self.labels == n].mean()) for n in labels)

    def of(self, label: int) -> _OfClass:
        rows = self.labels == label
        difference = (self.with_drawings - self.without)[rows].numpy()
        unit_of = np.unique(self.units[rows].numpy(), return_inverse=True)[1]
        sums = np.bincount(unit_of, difference - difference.mean())
        count, units = len(difference), len(sums)
        variance = float((sums**2).sum()) / count**2 * units / max(1, units - 1)
        # Units that all go one way have no variance: as if one more had gone the other way. Of fewer than six
        # a sign test would show nothing, so these may be a whole unit off.
        variance = max(variance, 1 / units**2 if units >= SIGNS else NORMAL**-2)
        means = float(self.without[rows].mean()), float(self.with_drawings[rows].mean())
        return _OfClass(*means, variance, variance * count, count)


class _OfClass(NamedTuple):
    """Means without and with drawings; the variance of their difference, and of that of one image."""

    without: float
    with_drawings: float
    variance: float
    of_one: float
    tested: int


def _pooled(rounds: Sequence[Outcome], base: str) -> _Pooled:
    rows = torch.cat([outcome.rows for outcome in rounds])
    kinds, which = rows.unique(return_inverse=True)
    times = torch.bincount(which).double()

    def mean(parts: list[Tensor]) -> Tensor:
        return (
            torch.zeros(len(kinds), dtype=torch.float64).index_add_(
                0, which, torch.cat(parts).double()
            )
            / times
        )

    labels, units = torch.zeros_like(kinds), torch.zeros_like(kinds)
    labels[which] = torch.cat([outcome.labels for outcome in rounds])
    units[which] = torch.cat([outcome.units for outcome in rounds])
    without, with_drawings = (
        mean([outcome.right[name] for outcome in rounds]) for name in (base, DRAWN)
    )
    return _Pooled(labels, units, without, with_drawings)


def _difference(
    pooled: _Pooled, rounds: Sequence[Outcome], base: str, classes: list[int], folded: bool
) -> Difference:
    """Of the mean over `classes`."""
    stats = {label: pooled.of(label) for label in classes}
    without, with_drawings = (statistics.fmean(stat[n] for stat in stats.values()) for n in (0, 1))
    reach = NORMAL * math.sqrt(sum(stat.variance for stat in stats.values())) / len(stats)
    by_round, luck = list[float](), list[float]()
    for outcome in rounds:
        change = outcome.right[DRAWN].double() - outcome.right[base].double()
        mine = {label: change[outcome.labels == label] for label in classes}
        tested = {label: changes for label, changes in mine.items() if len(changes)}
        if tested:
            by_round.append(statistics.fmean(float(changes.mean()) for changes in tested.values()))
            noise = sum(stats[label].of_one / len(changes) for label, changes in tested.items())
            luck.append(noise / len(tested) ** 2)
    if len(by_round) > 1:
        spread = statistics.variance(by_round)
        if folded:  # each fold tests other images, and their luck is in the spread too
            spread = max(0.0, spread - statistics.fmean(luck))
        spread *= shared(len(by_round), folded)
        reach = math.hypot(reach, student(len(by_round)) * math.sqrt(spread))
    change_of_all = with_drawings - without
    interval = max(-1.0, change_of_all - reach), min(1.0, change_of_all + reach)
    return Difference(without, with_drawings, interval, sum(stat.tested for stat in stats.values()))


def student(rounds: int) -> float:
    """Student's t, 97.5 %."""
    return STUDENT[min(rounds - 1, len(STUDENT)) - 1]


def shared(rounds: int, folded: bool) -> float:
    """The variance of the mean of so many rounds, as a part of that of one."""
    return 1 / rounds + (1 / (rounds - 1) if folded else 0.0)


def worth(
    curve: Mapping[float, Sequence[float]], drawn: Sequence[float], folded: bool
) -> tuple[float, Interval] | None:
    """How many times the images of these classes would do as much as the drawings; with a 95 % interval.

    `curve`: by the part of the images that a classifier learnt from (up to 1), its accuracy in each round;
    `drawn`: the accuracy with drawings. Along the curve accuracy is taken to rise by as much each time that
    the images double. None where the curve does not surely rise: then no number can be given (Fieller's
    interval has no end).
    """
    doublings = np.log2(list(curve))
    accuracies = np.array(list(curve.values()), dtype=np.float64)  # [parts, rounds]
    centred = doublings - doublings.mean()
    slopes = centred @ accuracies / (centred**2).sum()
    gains = np.array(drawn) - accuracies[int(doublings.argmax())]
    share, t = shared(len(gains), folded), student(len(gains))
    (of_gain, both), (_, of_slope) = np.cov(np.stack([gains, slopes])) * share * t**2
    gain, slope = float(gains.mean()), float(slopes.mean())
    end = slope**2 - of_slope
    if slope <= 0 or end <= 0:
        return None
    middle = gain * slope - both
    reach = math.sqrt(max(0.0, middle**2 - end * (gain**2 - of_gain)))
    low, high = (middle - reach) / end, (middle + reach) / end
    if max(abs(low), abs(high)) > math.log2(1000):  # far beyond the curve
        return None
    return 2 ** (gain / slope), (2**low, 2**high)
