"""Two generators compared under equal conditions, and how much of a difference is noise.

Equal are the judge, the hold-out, the latents, the labels, and the class mix: sets are compared at that of
the held-out images, for drawings, held-out and training images alike; accuracies are means over the classes.

Every metric comes with bootstrap replicates (Efron & Tibshirani, An Introduction to the Bootstrap, 1993):
drawings, held-out and training images are resampled with replacement, in up to 200 groups of neighbours,
not image by image, and the metric is taken of each sample. Of the kernel distance, subsets are resampled;
what neighbours or few images say has the noise of a jackknife. So an interval covers the noise of *which*
latents and *which* real images it was measured with. It doesn't cover what another seed of the training would
give, nor the judge's errors.

Both generators see the same replicates: position by position the same latents, labels and real images.
So the noise that they share drops out of a difference.

The score of real images is what those get that the judge has not seen. None are left for that, so training
images take the drawings' place, and what the judge knows of them by heart is taken off: how they differ from
held-out images, when both are set beside other held-out ones. Its noise is part of the score's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.judge import Judge, Prediction
from cgan.quality.metrics import (
    NEIGHBOURS,
    Accuracy,
    conditional_accuracy,
    frechet_distance,
    in_mix,
    kernel_distances,
    manifold,
    wilson_interval,
)

REPLICATES = 200
GROUPS = 200
MAX_BLOCK = 1000  # real images whose neighbours are looked at, and drawings of a block
MAX_BLOCKS = 20
SPLITS = 8  # of the hold-out into halves, each of which is set beside the other
LEAST_IN_HALF = 50
SHARES = ("precision", "recall", "coverage")
LEAST_FOR_DISTANCE = 50  # images of a class, drawn and real, for a distance of its own
PARTS = 10  # of a class's images, each of which is left out once


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

    @classmethod
    def centred(cls, value: float, replicates: Sequence[float]) -> Estimate:
        """Of replicates less the value, as an evaluation has them."""
        return cls(value, torch.tensor(replicates, dtype=torch.float64) + value)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: 2 standard deviations to each side; percentiles of so few replicates lie too near."""
        middle, reach = float(self.replicates.mean()), 2 * float(self.replicates.std())
        return middle - reach, middle + reach

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    def __truediv__(self, other: Estimate) -> Estimate:
        if other.value <= 0:  # unknown, and nothing may pass a limit by it
            return Estimate(0.0, torch.zeros_like(self.replicates))
        replicates = self.replicates / other.replicates.clamp(min=1e-9)
        return Estimate.of(self.value / other.value, replicates)

    @staticmethod
    def mean(estimates: Sequence[Estimate]) -> Estimate:
        """Of several that were measured alike."""
        values = [estimate.value for estimate in estimates]
        replicates = torch.stack([estimate.replicates for estimate in estimates]).mean(dim=0)
        return Estimate(sum(values) / len(values), replicates)


@dataclass(frozen=True)
class Judged:
    """What was measured of one set of drawings: `metrics` by the keys of METRICS, those through the judge;
    `distance_by_class` where a class has LEAST_FOR_DISTANCE images."""

    metrics: dict[str, Estimate]
    accuracy: Accuracy
    distance_by_class: list[Estimate | None]


@dataclass(eq=False)
class EvaluationSet:
    """What generators are judged on.

    `real`, `labels`: the hold-out in the judge's eyes. `trained`, `trained_labels`: features of training
    images [N, 128], real ones in place of drawings, in the hold-out's class mix. `asked`: the classes int64
    [N] of the drawings, about equally many of each; `rows` are those that have the hold-out's mix.
    Distances compare the first `distance_images` of `rows` with the hold-out, as `of_real` does.

    Raises ValueError where there are too few images for NEIGHBOURS.
    """

    judge: Judge
    real: Prediction
    labels: Tensor
    trained: Tensor
    trained_labels: Tensor
    asked: Tensor
    seed: int

    def __post_init__(self) -> None:
        self.classes = self.real.logits.shape[1]
        self.held = torch.bincount(self.labels, minlength=self.classes)
        self.rows = in_mix(self.asked, self.held)
        count = self.distance_images = min(len(self.rows), len(self.trained))
        self.block_images = min(len(self.labels), MAX_BLOCK, count)
        if self.block_images <= NEIGHBOURS:
            raise ValueError(f"{self.block_images} images to compare")
        random = torch.Generator().manual_seed(self.seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        self._mixed = torch.randperm(len(self.labels), generator=random)
        self._real = self.real.features[self._mixed]
        self._block = self._real[in_mix(self.labels[self._mixed], self.held)][: self.block_images]
        self.trained, self.trained_labels = self.trained[:count], self.trained_labels[:count]
        # How often the judge names the label of a held-out image.
        self.agreement = conditional_accuracy(self.real.classes, self.labels, self.classes)
        sizes = {
            "real": len(self.labels),
            "drawn": count,
            "asked": len(self.asked),
            "trained": count,
        }
        groups = {kind: min(GROUPS, size) for kind, size in sizes.items()}
        groups |= {f"{kind} parts": PARTS for kind in ("real", "drawn", "trained")}
        self._weights = {kind: resampled(many, random) for kind, many in groups.items()}

    @cached_property
    def _real_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, covariances and their roots."""
        means, covariances = _moments(self._real, self._weights["real"])
        return means, covariances, _a_core_each(_root, covariances)

    @cached_property
    def of_real(self) -> Judged:
        """What real images get in place of drawings: training images, less `by_heart`. Accuracies are what
        the judge gets on the hold-out; distances by class, what training images get."""
        metrics = self.of_heldout(self.real.classes)
        for key, estimate in self._compared(self.trained, "trained").items():
            heart = self.by_heart.get(key)
            less = estimate - heart if heart else estimate
            most = min(less.value, 1) if key in SHARES else less.value
            metrics[key] = Estimate.of(most, less.replicates)
        return Judged(
            metrics, self.agreement, self._by_class(self.trained, self.trained_labels, "trained")
        )

    @cached_property
    def variance_by_class(self) -> list[float]:
        """The total variance of the features of each class's held-out images; nan of less than two."""
        members = (self.real.features[self.labels == label] for label in range(self.classes))
        return [float(member.double().var(dim=0).sum()) for member in members]

    @cached_property
    def by_heart(self) -> dict[str, Estimate]:
        """What training images get beyond as many held-out ones, class by class, beside other held-out ones:
        the mean over SPLITS. Empty where these are too few, or the training images of a class are."""
        random = torch.Generator().manual_seed(self.seed)
        sets = []
        for _ in range(SPLITS):
            mixed = torch.randperm(len(self.labels), generator=random)
            mixed = mixed[self.labels[mixed].argsort(stable=True)]
            halves = mixed[0::2][: len(mixed) // 2], mixed[1::2]
            trained = torch.randperm(len(self.trained), generator=random)
            for rows, others in (halves, halves[::-1]):
                counts = torch.bincount(self.labels[others], minlength=self.classes)
                picked = trained[_first(self.trained_labels[trained], counts)]
                if not LEAST_IN_HALF <= len(others) == len(picked):
                    return {}
                order = torch.randperm(len(others), generator=random)  # all were sorted by class
                real = self.real.features
                sets.append((real[rows[order]], self.trained[picked[order]], real[others[order]]))
                trained = trained.flip(0)
        with parts_on_threads(available_threads()) as parallel:
            excesses = list(parallel(lambda three: _beyond(*three), sets))
        # Halves of the hold-out deviate as much as all of it does (McCarthy, Review of the International
        # Statistical Institute 37, 1969); training images do so by twice that, but each set has others.
        part = math.sqrt((1 + 2 / len(sets)) / 3)
        picks = torch.randint(len(sets), (REPLICATES,), generator=random)
        estimates = {}
        for key in excesses[0]:
            values = torch.tensor([excess[key] for excess in excesses], dtype=torch.float64)
            estimates[key] = Estimate.of(values.mean().item(), part * values[picks])
        return estimates

    def judge_seen(self, seen: Prediction) -> Judged:
        """Drawings of the classes `asked`, in that order, in the judge's eyes."""
        right, features = seen.classes == self.asked, seen.features[self.rows]
        accuracies = _accuracies(right, self.asked, self._weights["asked"], self.classes)
        return Judged(
            accuracies | self._compared(features, "drawn"),
            conditional_accuracy(seen.classes, self.asked, self.classes),
            self._by_class(features[: self.distance_images], self.asked[self.rows], "drawn"),
        )

    def of_heldout(self, named: Tensor) -> dict[str, Estimate]:
        """How often a classifier that names these classes, int64 [held-out images], is right."""
        right, labels = (named == self.labels)[self._mixed], self.labels[self._mixed]
        return _accuracies(right, labels, self._weights["real"], self.classes)

    def share(self, marked: Tensor) -> Estimate:
        """The share of the first drawings, bool [N], that are marked."""
        of_one_class = torch.zeros(len(marked), dtype=torch.int64)
        shares = _accuracies(marked, of_one_class, self._weights["asked"], classes=1)
        return shares["conditional_accuracy"]

    def _compared(self, features: Tensor, kind: str) -> dict[str, Estimate]:
        """The metrics of sets, of features in the hold-out's mix."""
        some = features[: self.distance_images]
        subsets = kernel_distances(self.real.features, some, self.seed)
        chosen = resampled(len(subsets), torch.Generator().manual_seed(self.seed))
        replicates = chosen @ subsets / len(subsets)
        return {
            "fid_judge": self.distance(some, kind),
            "kid_judge": Estimate.of(subsets.mean().item(), replicates),
            **self._neighbours(features, kind),
        }

    def distance(self, features: Tensor, kind: str) -> Estimate:
        """The Fréchet distance to the hold-out (`metrics.frechet_distance`)."""
        real, covariances, roots = self._real_moments
        means, others = _moments(features, self._weights[kind])
        overlap = _a_core_each(torch.linalg.eigvalsh, roots @ others @ roots)
        distances = _frechet(real, covariances, means, others, overlap)
        return Estimate.of(distances[0].item(), distances[1:])

    def _by_class(self, features: Tensor, labels: Tensor, kind: str) -> list[Estimate | None]:
        """The Fréchet distance of each class to its held-out images.

        Replicates have the variance of the jackknife, which leaves out one of PARTS of either side: of as few
        images as a class has, drawing with replacement raises a distance too much.
        """

        def of_class(label: int) -> Estimate | None:
            real = self._real[self.labels[self._mixed] == label]
            mine = features[labels[: len(features)] == label]
            if min(len(real), len(mine)) < LEAST_FOR_DISTANCE:
                return None
            without = 1 - torch.eye(PARTS, dtype=torch.float64)
            (means, covariances), others = _moments(real, without), _moments(mine, without)
            roots, every = _root(covariances), torch.arange(1, PARTS + 1)
            # All of both sides; all but a part of the real images; all but a part of the drawings.
            left = torch.cat([torch.zeros(1).long(), every, torch.zeros(PARTS).long()])
            right = torch.cat([torch.zeros(PARTS + 1).long(), every])
            overlap = torch.linalg.eigvalsh(roots[left] @ others[1][right] @ roots[left])
            distances = _frechet(
                means[left], covariances[left], others[0][right], others[1][right], overlap
            )
            replicates = distances[:1].expand(REPLICATES).clone()
            for side, left_out in (
                ("real", distances[1 : PARTS + 1]),
                (kind, distances[PARTS + 1 :]),
            ):
                seed = self.classes * ("real", "drawn", "trained").index(side) + label
                picks = resampled(PARTS, torch.Generator().manual_seed(seed))
                replicates += picks @ jackknifed(left_out)
            return Estimate.of(distances[0].item(), replicates)

        with parts_on_threads(available_threads()) as parallel:
            return list(parallel(of_class, range(self.classes)))

    def _neighbours(self, features: Tensor, kind: str) -> dict[str, Estimate]:
        """`metrics.manifold`'s, the mean over several blocks of as many drawings as real images.

        Replicates have the variance of the jackknife, which leaves out one of PARTS of either side (of the
        drawings, of one block): an image that is drawn twice would be its own neighbour.
        """
        count = self.block_images
        blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
        by_block = _manifolds(self._block, blocks)
        rest = [torch.arange(count) % PARTS != part for part in range(PARTS)]
        without_real = [_manifolds(self._block[rows], blocks[:2]) for rows in rest]
        without_drawn = [_manifolds(self._block, [blocks[0][rows]]) for rows in rest]
        estimates = {}
        for key, values in by_block.items():
            value = values.mean().item()
            real, drawn = (
                jackknifed(torch.stack([metrics[key].mean() for metrics in without]))
                for without in (without_real, without_drawn)
            )
            replicates = self._weights["real parts"] @ real
            replicates += self._weights[f"{kind} parts"] @ drawn / math.sqrt(len(blocks))
            if key in SHARES and not replicates.std() > 0:  # all or none: Wilson's interval
                low, high = wilson_interval(round(value * count), count)
                reach = torch.linspace(-1, 1, REPLICATES, dtype=torch.float64)
                replicates = (high - low) / 2 / reach.std() * reach
            estimates[key] = Estimate.of(value, replicates)
        return estimates


def _manifolds(real: Tensor, blocks: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of each block, float64 [blocks]; by fewer neighbours where so few images are left."""
    most = min(len(real), *map(len, blocks)) - 1
    by_block = [manifold(real, block, min(NEIGHBOURS, most)) for block in blocks]
    return {key: torch.stack([each[key].mean() for each in by_block]) for key in by_block[0]}


def _accuracies(
    right: Tensor, labels: Tensor, weights: Tensor, classes: int
) -> dict[str, Estimate]:
    """The mean over the classes that have images, and the worst of them."""
    parts, marks = (values.tensor_split(weights.shape[1]) for values in (labels, right.double()))
    counts = torch.stack([part.bincount(minlength=classes) for part in parts]).double()
    pairs = zip(parts, marks, strict=True)
    hits = torch.stack([part.bincount(marked, classes) for part, marked in pairs])
    present = counts.sum(dim=0) > 0
    by_class = hits.sum(dim=0)[present] / counts.sum(dim=0)[present]
    # A sample may hold no image of a rare class: there it is as in all of them.
    sampled, of_class = (weights @ hits)[:, present], (weights @ counts)[:, present]
    accuracies = torch.where(of_class > 0, sampled / of_class.clamp(min=1), by_class)
    return {
        "conditional_accuracy": Estimate.of(by_class.mean().item(), accuracies.mean(dim=1)),
        "worst_class_accuracy": Estimate.of(by_class.min().item(), accuracies.amin(dim=1)),
    }


def _first(labels: Tensor, counts: Tensor) -> Tensor:
    """Rows of the first images of each class, so many (or all there are) as `counts` has, in order of the
    classes."""
    order = labels.argsort(stable=True)
    available = torch.bincount(labels, minlength=len(counts))
    rank = torch.arange(len(labels)) - (available.cumsum(0) - available)[labels[order]]
    return order[rank < counts[labels[order]]]


def _beyond(real: Tensor, training: Tensor, others: Tensor) -> dict[str, float]:
    """By how much `training` exceeds `others`, of equal counts and both beside `real`, in each metric."""

    def metrics(drawn: Tensor) -> dict[str, float]:
        some = MAX_BLOCK // 2
        near = manifold(real[:some], drawn[:some])
        return {
            "fid_judge": frechet_distance(real, drawn),
            "kid_judge": kernel_distances(real, drawn, subsets=1).item(),
            **{key: values.mean().item() for key, values in near.items()},
        }

    mine, its = metrics(training), metrics(others)
    return {key: mine[key] - its[key] for key in mine}


def jackknifed(left_out: Tensor) -> Tensor:
    """What each part adds to a value, from the values without each of the parts, float64 [N]: replicates that
    draw parts with replacement have the jackknife's variance then (Efron & Stein, Annals of Statistics 9,
    1981: on average not too small)."""
    count = len(left_out)
    return (left_out.mean() - left_out) * math.sqrt((count - 1) / count)


def resampled(count: int, random: torch.Generator) -> Tensor:
    """How often each of `count` things is drawn in each replicate: float64 [REPLICATES, count]."""
    picks = torch.randint(count, (REPLICATES, count), generator=random)
    weights = torch.zeros(REPLICATES, count, dtype=torch.float64)
    return weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))


def _moments(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of all images (row 0), then of each replicate: means [1+B, D], covariances [1+B, D, D]. Resamples
    groups of neighbours, not single images: their sums are taken once."""
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
    return means, (second / total - outer) * (total / (total - 1))


def _root(covariances: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariances)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return root


def _frechet(
    means: Tensor, covariances: Tensor, others: Tensor, their_covariances: Tensor, overlap: Tensor
) -> Tensor:
    """Distances [B], from means [B, D], covariances [B, D, D] and the eigenvalues of their product [B, D]."""
    apart = (means - others).square().sum(dim=1)
    traces = sum(c.diagonal(dim1=1, dim2=2).sum(dim=1) for c in (covariances, their_covariances))
    return (apart + traces - 2 * overlap.clamp(min=0).sqrt().sum(dim=1)).clamp(min=0)


def _a_core_each(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """LAPACK's own threads, on matrices as small as these, took 20 times as long as one thread."""
    parts = available_threads()
    with parts_on_threads(parts) as parallel:
        return torch.cat(list(parallel(function, matrices.tensor_split(parts))))
