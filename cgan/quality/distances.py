"""Fréchet and kernel distance, in the judge's features: formulas, and their Scores.

Heusel et al., arXiv:1706.08500 (eq. 6); Bińkowski et al., arXiv:1801.01401 (eq. 4: unbiased MMD², cubic
kernel).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cgan.evaluation import Interval, Score
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.estimates import (
    Estimate,
    Estimates,
    bootstrap_weights,
    jackknife_replicates,
    scores,
)
from cgan.quality.evaluation_set import JACKKNIFE_PARTS, SOURCES, EvaluationSet, Source

MAX_KERNEL_IMAGES = 5000  # of each side, for the kernel distance: its time grows with their square
MIN_DISTANCE_IMAGES = 50  # drawn and real images of a class, for a Fréchet distance of its own


def distance_scores(
    evaluation_set: EvaluationSet, draws: Sequence[Tensor], real: Estimates
) -> dict[str, Score]:
    """The scores of several sets of drawings by their features, in the hold-out's mix. `real`: what real
    images get (`judge_bias.subtract_bias`)."""
    estimates = [distance_estimates(evaluation_set, features, "drawn") for features in draws]
    found = scores(estimates, real)
    values = [estimate["fid_judge"].value for estimate in estimates]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return found | {"fid_judge": replace(found["fid_judge"], details={"deviation": deviation})}


def distances_of_training(evaluation_set: EvaluationSet) -> Estimates:
    """The distances of training images in the drawings' place."""
    return distance_estimates(evaluation_set, evaluation_set.training_features, "training")


def distance_estimates(
    evaluation_set: EvaluationSet, features: Tensor, source: Source
) -> Estimates:
    """The distances of features from the hold-out."""
    features = features[: evaluation_set.distance_images]
    return {
        "fid_judge": frechet_estimate(evaluation_set, features, source),
        "kid_judge": kernel_estimate(evaluation_set, features, source),
    }


def frechet_estimate(evaluation_set: EvaluationSet, features: Tensor, source: Source) -> Estimate:
    """The Fréchet distance to the hold-out (`metrics.frechet_distance`)."""
    heldout, roots = evaluation_set.compute_once(_moments_of_heldout)
    moments = _moments(features, evaluation_set.bin_weights[source])
    eigenvalues = _map_on_cores(torch.linalg.eigvalsh, roots @ moments.covariances @ roots)
    distances = _frechet_distances(heldout, moments, eigenvalues)
    return Estimate.of(distances[0].item(), distances[1:])


def kernel_estimate(evaluation_set: EvaluationSet, features: Tensor, source: Source) -> Estimate:
    """The kernel distance to the hold-out. Replicates have the variance of the jackknife, which leaves out
    one of JACKKNIFE_PARTS of either side: an image that is picked twice would be compared with itself."""
    real, drawn = (
        side[:MAX_KERNEL_IMAGES] for side in (evaluation_set.shuffled_features, features)
    )
    without_real, without_drawn = kernel_distances(real, drawn)
    weights = evaluation_set.part_weights
    replicates = jackknife_replicates(
        (weights["heldout"], without_real[1:]), (weights[source], without_drawn[1:])
    )
    return Estimate.of(without_real[0].item(), replicates)


def distances_by_class(
    evaluation_set: EvaluationSet, features: Tensor, labels: Tensor, source: Source
) -> list[Estimate | None]:
    """The Fréchet distance of each class to its held-out images, of features in the hold-out's mix; None
    where a class has less than MIN_DISTANCE_IMAGES images.

    Replicates have the variance of the jackknife, which leaves out one of JACKKNIFE_PARTS of either side: of
    as few images as a class has, resampling with replacement raises a distance too much.
    """
    features = features[: evaluation_set.distance_images]
    labels = labels[: len(features)]
    one_part_left_out = 1 - torch.eye(JACKKNIFE_PARTS, dtype=torch.float64)

    def estimate(label: int) -> Estimate | None:
        real = evaluation_set.shuffled_features[evaluation_set.shuffled_labels == label]
        drawn = features[labels == label]
        if min(len(real), len(drawn)) < MIN_DISTANCE_IMAGES:
            return None
        # Of each side: row 0 is of all its images, row n of all but its n-th part.
        of_real, of_drawn = (_moments(side, one_part_left_out) for side in (real, drawn))
        every_part = torch.arange(1, JACKKNIFE_PARTS + 1)
        no_part = torch.zeros_like(every_part)
        real_rows = torch.cat([no_part[:1], every_part, no_part])
        drawn_rows = torch.cat([no_part[:1], no_part, every_part])
        roots = _root(of_real.covariances)[real_rows]
        eigenvalues = torch.linalg.eigvalsh(roots @ of_drawn.covariances[drawn_rows] @ roots)
        distances = _frechet_distances(of_real.at(real_rows), of_drawn.at(drawn_rows), eigenvalues)
        value, without_real, without_drawn = distances.split([1, JACKKNIFE_PARTS, JACKKNIFE_PARTS])

        def weights(side: Source) -> Tensor:
            seed = evaluation_set.classes * SOURCES.index(side) + label
            return bootstrap_weights(JACKKNIFE_PARTS, torch.Generator().manual_seed(seed))

        replicates = jackknife_replicates(
            (weights("heldout"), without_real), (weights(source), without_drawn)
        )
        return Estimate.of(value.item(), replicates)

    with parts_on_threads(available_threads()) as parallel:
        return list(parallel(estimate, range(evaluation_set.classes)))


def training_distances_by_class(evaluation_set: EvaluationSet) -> list[Estimate | None]:
    """The distances of the training images of each class, in the drawings' place."""
    features, labels = evaluation_set.training_features, evaluation_set.training_labels
    return distances_by_class(evaluation_set, features, labels, "training")


def excess_interval(
    drawn: Estimate | None, real: Estimate | None, variance: float
) -> Interval | None:
    """By how much the Fréchet distance of a class exceeds that of real images, as a fraction of these images'
    variance, at 95 %: at 1 the drawings are as far off as one point at the class's mean features. None where
    one of them is not known, or all of the images have the same features."""
    if not drawn or not real or not variance > 0:
        return None
    low, high = (drawn - real).interval
    return low / variance, high / variance


def variance_by_class(evaluation_set: EvaluationSet) -> list[float]:
    """The total variance of the features of each class's held-out images; nan of less than two."""
    features, labels = evaluation_set.heldout.features, evaluation_set.heldout_labels
    by_class = (features[labels == label] for label in range(evaluation_set.classes))
    return [float(members.double().var(dim=0).sum()) for members in by_class]


def kernel_distances(real: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased MMD² with the kernel (x·y/D + 1)³, of features [N, D] and [M, D]: around 0 for equal
    distributions whatever the counts; it can lie below.

    Of all images (row 0), then without each of JACKKNIFE_PARTS of the real ones; and the same of the drawn
    ones: float64 [1 + JACKKNIFE_PARTS] each.
    """
    real, drawn = real.double(), drawn.double()
    part_is_kept = torch.cat([torch.ones(1, JACKKNIFE_PARTS), 1 - torch.eye(JACKKNIFE_PARTS)])
    part_is_kept = part_is_kept.double()

    def kernel_sums(x: Tensor, y: Tensor) -> Tensor:
        """Of each part of x with each of y: [JACKKNIFE_PARTS, JACKKNIFE_PARTS]."""
        columns = [
            ((part @ y.T / y.shape[1] + 1) ** 3).sum(dim=0)
            for part in x.tensor_split(JACKKNIFE_PARTS)
        ]
        parts = torch.stack(columns).tensor_split(JACKKNIFE_PARTS, dim=1)
        return torch.stack([part.sum(dim=1) for part in parts], dim=1)

    def kept(x: Tensor) -> Tensor:
        """How many images of x are kept."""
        return part_is_kept @ torch.tensor(
            [len(part) for part in x.tensor_split(JACKKNIFE_PARTS)], dtype=torch.float64
        )

    def within(x: Tensor) -> Tensor:
        """The mean kernel of two images of x."""
        of_itself = (x.square().sum(dim=1) / x.shape[1] + 1) ** 3
        own = torch.stack([part.sum() for part in of_itself.tensor_split(JACKKNIFE_PARTS)])
        sums = kernel_sums(x, x) - own.diag()
        return (part_is_kept @ sums * part_is_kept).sum(dim=1) / (kept(x) * (kept(x) - 1))

    within_real, within_drawn, between = within(real), within(drawn), kernel_sums(real, drawn)
    between_real = (part_is_kept @ between).sum(dim=1) / (kept(real) * len(drawn))
    between_drawn = (part_is_kept @ between.T).sum(dim=1) / (kept(drawn) * len(real))
    return (
        within_real + within_drawn[0] - 2 * between_real,
        within_real[0] + within_drawn - 2 * between_drawn,
    )


@dataclass(frozen=True)
class _Moments:
    """The moments of several sets of features: means float64 [B, D], covariances [B, D, D]."""

    means: Tensor
    covariances: Tensor

    def at(self, rows: Tensor) -> Self:
        return type(self)(self.means[rows], self.covariances[rows])


def _moments_of_heldout(evaluation_set: EvaluationSet) -> tuple[_Moments, Tensor]:
    """The hold-out's moments, and the roots of the covariances [B, D, D]."""
    moments = _moments(
        evaluation_set.shuffled_features,
        evaluation_set.bin_weights["heldout"],
        evaluation_set.heldout_cuts,
    )
    return moments, _map_on_cores(_root, moments.covariances)


def _moments(features: Tensor, weights: Tensor, cuts: Tensor | None = None) -> _Moments:
    """The moments of all images (row 0), then of each replicate. `weights` [replicates, bins]: bins of
    consecutive rows are resampled, not single images, so their sums are taken once. `cuts`: where bins begin;
    without them, they are of equal size."""
    weights = torch.cat([torch.ones(1, weights.shape[1], dtype=weights.dtype), weights])
    bins = features.double().tensor_split(weights.shape[1] if cuts is None else cuts)
    counts = torch.tensor([len(each) for each in bins], dtype=torch.float64)
    sums = torch.stack([each.sum(dim=0) for each in bins])
    squares = torch.stack([each.T @ each for each in bins])
    totals = (weights @ counts)[:, None]
    means = weights @ sums / totals
    second_moments = (weights @ squares.flatten(1)).view(-1, *squares.shape[1:])
    outer = means[:, :, None] * means[:, None, :]
    totals = totals[:, :, None]
    return _Moments(means, (second_moments / totals - outer) * (totals / (totals - 1)))


def _root(covariances: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariances)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return root


def _frechet_distances(real: _Moments, drawn: _Moments, eigenvalues: Tensor) -> Tensor:
    """Distances [B], as `metrics.frechet_distance` computes them; `eigenvalues` [B, D]: of the products of
    both covariances."""
    shift = (real.means - drawn.means).square().sum(dim=1)
    traces = sum(
        covariances.diagonal(dim1=1, dim2=2).sum(dim=1)
        for covariances in (real.covariances, drawn.covariances)
    )
    return (shift + traces - 2 * eigenvalues.clamp(min=0).sqrt().sum(dim=1)).clamp(min=0)


def _map_on_cores(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """`function` of all matrices [B, D, D], some of them on each core: LAPACK's own threads, on matrices as
    small as these, took 20 times as long as one thread."""
    parts = available_threads()
    with parts_on_threads(parts) as parallel:
        return torch.cat(list(parallel(function, matrices.tensor_split(parts))))
