"""A measured value with replicates of it, and what becomes of both in a difference or a quotient.

Replicates are what the value would have been with other images and latents, by the bootstrap (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993) or with the variance of a jackknife. Values that were
measured alike have replicates of the same resampling, position by position: the noise that they share drops
out of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cgan.evaluation import Score
from cgan.proportions import wilson_interval

REPLICATES = 200
JACKKNIFE_PARTS = 10  # of a set, each of which is left out once
REPLICATE_DECIMALS = 7  # of the replicates that an evaluation keeps


@dataclass(frozen=True)
class Estimate:
    """A value and its replicates, float64 [REPLICATES]."""

    value: float
    replicates: Tensor

    @classmethod
    def of(cls, value: float, replicates: Tensor) -> Estimate:
        """The estimate whose replicates are shifted so that their mean is the value: a sample with
        replacement holds some images twice, and that alone raises a Fréchet distance."""
        return cls(value, replicates - replicates.mean() + value)

    @classmethod
    def from_deviations(cls, value: float, deviations: Sequence[float]) -> Estimate:
        """The estimate whose replicates are `deviations` from the value, as an evaluation keeps them."""
        return cls(value, torch.tensor(deviations, dtype=torch.float64) + value)

    @classmethod
    def of_score(cls, score: Score) -> Estimate:
        """Of the drawings of a score, which has a value."""
        assert score.value is not None
        return cls.from_deviations(score.value, score.replicates)

    @classmethod
    def of_real(cls, score: Score) -> Estimate:
        """Of the real images of a score, which has their value."""
        assert score.real is not None
        return cls.from_deviations(score.real, score.real_replicates)

    @property
    def deviations(self) -> tuple[float, ...]:
        """The replicates less their mean, which `from_deviations` takes."""
        replicates = self.replicates - self.replicates.mean()
        return tuple(round(value, REPLICATE_DECIMALS) for value in replicates.tolist())

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: 2 standard deviations to each side; percentiles of so few replicates lie too near.

        Ten parts of a jackknife leave 9 to 18 degrees of freedom, for which Student's t is 2.1 to 2.3. But
        the deviation that they say is too large: by simulation, 2 of it hold 95 % or more.
        """
        centre, half_width = float(self.replicates.mean()), 2 * float(self.replicates.std())
        return centre - half_width, centre + half_width

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    def __truediv__(self, other: Estimate) -> Estimate:
        replicates = self.replicates / other.replicates.clamp(min=1e-9)
        return Estimate.of(self.value / other.value, replicates)

    def score(self, real: Estimate | float) -> Score:
        """The numbers of a metric. `real`: what real images get."""
        found = Score(value=self.value, interval=self.interval, replicates=self.deviations)
        if isinstance(real, Estimate):
            return replace(found, real=real.value, real_replicates=real.deviations)
        return replace(found, real=real)


Estimates = Mapping[str, Estimate]
"""Estimates by the keys of metrics."""


def jackknife_replicates(*sides: tuple[Tensor, Tensor]) -> Tensor:
    """By how much a value that independent sides give deviates, float64 [REPLICATES]: of each side `weights`
    [REPLICATES, N] of its N parts, and the values without each of them, float64 [N].

    They have the jackknife's variance (Efron & Stein, Annals of Statistics 9, 1981: on average not too
    small).
    """
    of_sides = [
        weights @ (left_out.mean() - left_out) * math.sqrt(1 - 1 / len(left_out))
        for weights, left_out in sides
    ]
    return torch.stack(of_sides).sum(dim=0)


def bootstrap_weights(count: int, random: torch.Generator) -> Tensor:
    """How often each of `count` images, groups or parts is picked in each replicate: float64
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
