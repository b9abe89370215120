"""Intervals at 95 % of an evaluation's numbers, and of differences between two evaluations.

The share of copies has Wilson's interval, accuracies have that of `cgan.quality.proportions`.
Distance, recall, coverage and diversity have that of replicates: what the value would have been with other
images and latents, by the bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993), or with the
variance of a jackknife where an image that is picked twice would be its own neighbour. Values that were
measured alike have replicates of the same resampling, position by position: the noise that they share drops
out of their difference.

No interval covers what another seed of the training would give, nor the judge's errors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.base.report import Interval
from cgan.quality.evaluation import Score
from cgan.quality.proportions import wilson_interval

REPLICATES = 200
JACKKNIFE_PARTS = 10  # of a set, each of which is left out once
REPLICATE_DECIMALS = 7  # of the replicates that an evaluation keeps


class Bins(NamedTuple):
    """Bins of consecutive images, each of which the bootstrap picks as a whole, so that their sums are taken
    once. `cuts` int64 [bins - 1]: the first row of each but the first; `weights` float64 [REPLICATES, bins]:
    how often each is picked."""

    cuts: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Estimate:
    """A value and its replicates, float64 [REPLICATES]."""

    value: float
    replicates: Tensor

    @classmethod
    def centred(cls, value: float, replicates: Tensor) -> Estimate:
        """The estimate whose replicates are shifted so that their mean is the value: a sample with
        replacement holds some images twice, and that alone raises a Fréchet distance."""
        return cls(value, replicates - replicates.mean() + value)

    @classmethod
    def restored(cls, value: float | None, deviations: Sequence[float]) -> Estimate:
        """The estimate of a value, which is known, that a score keeps with its `deviations`."""
        assert value is not None
        return cls(value, torch.tensor(deviations, dtype=torch.float64) + value)

    @property
    def deviations(self) -> tuple[float, ...]:
        """The replicates less their mean, as a score keeps them."""
        replicates = self.replicates - self.replicates.mean()
        return tuple(round(value, REPLICATE_DECIMALS) for value in replicates.tolist())

    @property
    def interval(self) -> Interval:
        """2 standard deviations to each side; percentiles of so few replicates lie too near.

        Ten parts of a jackknife leave 9 to 18 degrees of freedom, for which Student's t is 2.1 to 2.3. But
        the deviation that they say is too large: by simulation, 2 of it hold 95 % or more.
        """
        centre = float(self.replicates.mean())
        half_width = 2 * float(self.replicates.std())
        return centre - half_width, centre + half_width

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    def __truediv__(self, other: Estimate) -> Estimate:
        replicates = self.replicates / other.replicates.clamp(min=1e-9)
        return Estimate.centred(self.value / other.value, replicates)

    def score(self, real: Estimate | float) -> Score:
        """The numbers of a metric. `real`: what real images get."""
        found = Score(value=self.value, interval=self.interval, deviations=self.deviations)
        if isinstance(real, Estimate):
            return replace(found, real=real.value, real_deviations=real.deviations)
        return replace(found, real=real)


Estimates = Mapping[str, Estimate]
"""Estimates by the keys of metrics."""


def jackknife_replicates(*sides: tuple[Tensor, Tensor]) -> Tensor:
    """The deviations of a value that independent sides give, float64 [REPLICATES]: of each side `weights`
    [REPLICATES, N] of its N parts, and the values without each of them, float64 [N].

    They have the jackknife's variance, on average not too small (Efron & Stein, Ann. Statist. 9, 1981).
    """
    of_sides = [
        weights @ (left_out.mean() - left_out) * math.sqrt(1 - 1 / len(left_out))
        for weights, left_out in sides
    ]
    return torch.stack(of_sides).sum(dim=0)


def bootstrap_weights(count: int, random: torch.Generator) -> Tensor:
    """Numbers of times that each of `count` images, bins or parts is picked in each replicate: float64
    [REPLICATES, count]."""
    picks = torch.randint(count, (REPLICATES, count), generator=random)
    weights = torch.zeros(REPLICATES, count, dtype=torch.float64)
    return weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))


def wilson_replicates(value: float, count: int) -> Tensor:
    """Replicates for a share of `count` images of which all or none count, where resampling finds no noise:
    their interval reaches as far from the value, to either side, as Wilson's does.

    They are evenly spaced, for want of images to resample: in the difference of two such shares, all of the
    noise drops out.
    """
    low, high = wilson_interval(round(value * count), count)
    spread = torch.linspace(-1, 1, REPLICATES, dtype=torch.float64)
    return (high - low) / 2 / spread.std() * spread


def critical_t(freedom: float, level: float = 0.95, comparisons: int = 1) -> float:
    """Half the width of an interval, in standard errors, that is at `level` for so many `comparisons`
    together (Bonferroni): Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # scipy takes its time to import, so functions do that

    return float(stdtrit(freedom, 1 - (1 - level) / (2 * comparisons)))


def difference_of_means(a: Sequence[float], b: Sequence[float]) -> tuple[float, Interval]:
    """mean(b) - mean(a) with Welch's interval, for trainings with several seeds: it covers the luck of a
    seed, too. Each needs two values at least."""
    from scipy.stats import ttest_ind

    change = statistics.fmean(b) - statistics.fmean(a)
    if not statistics.variance(a) and not statistics.variance(b):
        return change, (change, change)
    low, high = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    return change, (float(low), float(high))
