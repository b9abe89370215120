"""Two generators compared under equal conditions, and how much of a difference is noise.

Equal are the judge, the hold-out, the latents and the labels.

Every metric comes with bootstrap replicates (Efron & Tibshirani, An Introduction to the Bootstrap, 1993):
drawings, held-out and training images are resampled with replacement, in up to 200 groups of neighbours,
not image by image (coverage: real images singly, drawings in blocks), and the metric is taken of each
sample. So an interval covers the noise of *which* latents and *which* real images it was measured with.
It doesn't cover what another seed of the training would give, nor the judge's errors.

Both generators see the same replicates: position by position the same latents, labels and real images.
So the noise that they share drops out of a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.judge import LOOK_AT, Judge, Prediction, Progress, look, silent
from cgan.quality.metrics import NEIGHBOURS, conditional_accuracy

REPLICATES = 200
GROUPS = 200
MAX_COVERED = 1000  # real images whose surroundings coverage looks at
MAX_BLOCKS = 20
# What is measured of both generators, by the keys of `quality.table`.
COMPARED = ("fid_judge", "conditional_accuracy", "worst_class_accuracy", "coverage")


@dataclass(frozen=True)
class Estimate:
    """A value and its bootstrap replicates [B]. `of` shifts them so that their mean is the value: a
    sample drawn with replacement holds some images twice, and that alone raises a Fréchet distance.
    """

    value: float
    replicates: Tensor

    @classmethod
    def of(cls, value: float, replicates: Tensor) -> Estimate:
        return cls(value, replicates - replicates.mean() + value)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: 2 standard deviations to each side; percentiles of so few replicates lie too near."""
        middle, reach = float(self.replicates.mean()), 2 * float(self.replicates.std())
        return middle - reach, middle + reach

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    def __truediv__(self, other: Estimate) -> Estimate:
        if other.value <= 0:
            return Estimate(1.0, torch.ones_like(self.replicates))
        replicates = self.replicates / other.replicates.clamp(min=1e-9)
        return Estimate.of(self.value / other.value, replicates)


@dataclass(frozen=True)
class Judged:
    """What was measured of one generator."""

    metrics: dict[str, Estimate]  # the keys COMPARED
    fid_over_floor: Estimate
    coverage_of_floor: Estimate
    right_by_class: list[int]
    asked_by_class: list[int]

    def values(self) -> dict[str, float]:
        return {name: estimate.value for name, estimate in self.metrics.items()}


class EvaluationSet:
    """What generators are judged on.

    `real`, `labels`: the hold-out in the judge's eyes. `floor`: features of training images
    [N, 128], real ones in place of drawings. `asked`: the classes int64 [N] of the drawings.
    Distances compare the first len(floor) drawings with the hold-out, as the floor does.
    """

    def __init__(
        self,
        judge: Judge,
        real: Prediction,
        labels: Tensor,
        floor: Tensor,
        asked: Tensor,
        seed: int,
        progress: Progress = silent,
    ) -> None:
        self.judge, self.real, self.asked, self.seed = judge, real, asked, seed
        self._progress = progress
        self.classes = real.logits.shape[1]
        self.distance_images = min(len(asked), len(floor))
        random = torch.Generator().manual_seed(seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        mixed = torch.randperm(len(real.features), generator=random)
        self._real, self.floor = real.features[mixed], floor[: self.distance_images]
        # How often the judge names the label of a held-out image.
        self.agreement = conditional_accuracy(real.classes, labels, self.classes)
        self._weights = {
            kind: _resampled(count, random)
            for kind, count in {
                "real": min(GROUPS, len(mixed)),
                "drawn": min(GROUPS, self.distance_images),
                "asked": min(GROUPS, len(asked)),
                "floor": min(GROUPS, self.distance_images),
                "covered": self.covered_images,
            }.items()
        }

    @property
    def covered_images(self) -> int:
        return min(len(self._real), MAX_COVERED, self.distance_images)

    @cached_property
    def _real_moments(self) -> _Moments:
        return _moments(self._real, self._weights["real"])

    @cached_property
    def _real_roots(self) -> Tensor:
        return _a_core_each(_root, self._real_moments.covariances)

    @cached_property
    def fid_floor(self) -> Estimate:
        """The Fréchet distance that real training images get."""
        return self.distance(self.floor, "floor")

    @cached_property
    def coverage_floor(self) -> Estimate:
        return self._coverage(self.floor)

    def judge_drawings(self, images: Tensor) -> Judged:
        """`images` uint8 [N, C, H, W] show the classes `asked`, in that order."""
        bar = partial(self._progress, "judging", images_a_step=LOOK_AT)
        seen = look(self.judge, images, progress=bar)
        right = seen.classes == self.asked
        distance = self.distance(seen.features[: self.distance_images], "drawn")
        coverage = self._coverage(seen.features)
        asked_by_class = torch.bincount(self.asked, minlength=self.classes)
        right_by_class = torch.bincount(self.asked[right], minlength=self.classes)
        overall, worst = self._accuracies(right)
        return Judged(
            metrics={
                "fid_judge": distance,
                "conditional_accuracy": overall,
                "worst_class_accuracy": worst,
                "coverage": coverage,
            },
            fid_over_floor=distance - self.fid_floor,
            coverage_of_floor=coverage / self.coverage_floor,
            right_by_class=right_by_class.tolist(),
            asked_by_class=asked_by_class.tolist(),
        )

    def _accuracies(self, right: Tensor) -> tuple[Estimate, Estimate]:
        """Over all drawings, and of the worst class."""
        weights = self._weights["asked"]
        asked, hits = (
            _counts(self.asked, each.double(), self.classes, weights.shape[1])
            for each in (torch.ones_like(right), right)
        )
        found = (weights @ hits) / (weights @ asked).clamp(min=1)
        overall = (weights @ hits).sum(dim=1) / (weights @ asked).sum(dim=1)
        drawn = asked.sum(dim=0) > 0
        by_class = hits.sum(dim=0)[drawn] / asked.sum(dim=0)[drawn]
        return (
            Estimate.of(right.double().mean().item(), overall),
            Estimate.of(by_class.min().item(), found[:, drawn].min(dim=1).values),
        )

    def distance(self, features: Tensor, kind: str) -> Estimate:
        """The Fréchet distance to the hold-out (`metrics.frechet_distance`)."""
        real, other = self._real_moments, _moments(features, self._weights[kind])
        means = (real.means - other.means).square().sum(dim=1)
        traces = sum(m.covariances.diagonal(dim1=1, dim2=2).sum(dim=1) for m in (real, other))
        product = self._real_roots @ other.covariances @ self._real_roots
        values = _a_core_each(torch.linalg.eigvalsh, product)
        overlap = values.clamp(min=0).sqrt().sum(dim=1)
        distances = (means + traces - 2 * overlap).clamp(min=0)
        return Estimate.of(distances[0].item(), distances[1:])

    def _coverage(self, features: Tensor) -> Estimate:
        """`metrics.manifold`'s, the mean over several blocks of as many drawings as real images."""
        count = self.covered_images
        real = self._real[:count]
        k = min(NEIGHBOURS, count - 1)
        radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
        blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
        covered = torch.stack([(torch.cdist(b, real) < radius).any(dim=0) for b in blocks]).double()
        chosen = _resampled(len(blocks), torch.Generator().manual_seed(self.seed))
        weights = self._weights["covered"]
        found = ((chosen @ covered) * weights).sum(dim=1) / (len(blocks) * count)
        return Estimate.of(covered.mean().item(), found)


@dataclass(frozen=True)
class _Moments:
    """Of all images (row 0), then of each replicate: means [1+B, D], covariances [1+B, D, D]."""

    means: Tensor
    covariances: Tensor


def _resampled(count: int, random: torch.Generator) -> Tensor:
    """How often each of `count` things is drawn in each replicate: float64 [REPLICATES, count]."""
    picks = torch.randint(count, (REPLICATES, count), generator=random)
    weights = torch.zeros(REPLICATES, count, dtype=torch.float64)
    return weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))


def _counts(labels: Tensor, weights: Tensor, classes: int, groups: int) -> Tensor:
    """How much weight each group of neighbours has in each class: [groups, classes]."""
    parts = zip(labels.tensor_split(groups), weights.tensor_split(groups), strict=True)
    return torch.stack([torch.bincount(part, weight, classes) for part, weight in parts])


def _moments(features: Tensor, weights: Tensor) -> _Moments:
    """Resamples groups of neighbours, not single images: their sums are taken once."""
    weights = torch.cat([torch.ones(1, weights.shape[1], dtype=weights.dtype), weights])
    parts = features.double().tensor_split(weights.shape[1])
    counts = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    sums = torch.stack([part.sum(dim=0) for part in parts])
    squares = torch.stack([part.T @ part for part in parts])
    total = (weights @ counts)[:, None]
    means = weights @ sums / total
    second = (weights @ squares.flatten(1)).view(-1, *squares.shape[1:])
    outer = means[:, :, None] * means[:, None, :]
    total = total[:, :, None]
    return _Moments(means, (second / total - outer) * (total / (total - 1)))


def _root(covariances: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariances)
    scaled: Tensor = vectors * values.clamp(min=0).sqrt()[:, None, :]
    root: Tensor = scaled @ vectors.mT
    return root


def _a_core_each(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """LAPACK's own threads, on matrices as small as these, took 20 times as long as one thread."""
    parts = available_threads()
    with parts_on_threads(parts) as parallel:
        return torch.cat(list(parallel(function, matrices.tensor_split(parts))))
