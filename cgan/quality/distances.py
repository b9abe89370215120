"""Fréchet and kernel distance, in the judge's features: formulas, and their Scores.

Heusel et al., arXiv:1706.08500 (eq. 6); Bińkowski et al., arXiv:1801.01401 (eq. 4: unbiased MMD², cubic
kernel).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cgan.evaluation import Interval, Score
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.estimates import (
    Estimate,
    Estimates,
    jackknifed,
    resampled,
    scores,
)
from cgan.quality.evaluation_set import PARTS, EvaluationSet

SUBSETS, SUBSET_SIZE = 20, 1000  # of the kernel distance
LEAST_FOR_DISTANCE = 50  # images of a class, drawn and real, for a distance of its own


def distance_scores(
    against: EvaluationSet, draws: Sequence[Tensor], real: Estimates
) -> dict[str, Score]:
    """The scores of several sets of drawings by their features, in the hold-out's mix. `real`: what real
    images get (`memorisation.unbiased`)."""
    estimates = [distance_estimates(against, each, "drawn") for each in draws]
    found = scores(estimates, real)
    values = [each["fid_judge"].value for each in estimates]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return found | {"fid_judge": replace(found["fid_judge"], details={"deviation": deviation})}


def distances_of_training(against: EvaluationSet) -> Estimates:
    """The distances of training images in the drawings' place."""
    return distance_estimates(against, against.trained, "trained")


def distance_estimates(against: EvaluationSet, features: Tensor, kind: str) -> Estimates:
    """The distances of features from the hold-out. For the kernel distance, subsets are resampled."""
    some = features[: against.distance_images]
    subsets = kernel_distances(against.real.features, some, against.seed)
    chosen = resampled(len(subsets), torch.Generator().manual_seed(against.seed))
    return {
        "fid_judge": frechet_estimate(against, some, kind),
        "kid_judge": Estimate.of(subsets.mean().item(), chosen @ subsets / len(subsets)),
    }


def frechet_estimate(against: EvaluationSet, features: Tensor, kind: str) -> Estimate:
    """The Fréchet distance to the hold-out (`metrics.frechet_distance`)."""
    real, covariances, roots = against.once(_moments_of_heldout)
    means, others = _moments(features, against.weights[kind])
    overlap = _a_core_each(torch.linalg.eigvalsh, roots @ others @ roots)
    distances = _frechet(real, covariances, means, others, overlap)
    return Estimate.of(distances[0].item(), distances[1:])


def distances_by_class(
    against: EvaluationSet, features: Tensor, labels: Tensor, kind: str
) -> list[Estimate | None]:
    """The Fréchet distance of each class to its held-out images, of features in the hold-out's mix; None
    where a class has less than LEAST_FOR_DISTANCE images.

    Replicates have the variance of the jackknife, which leaves out one of PARTS of either side: of as few
    images as a class has, drawing with replacement raises a distance too much.
    """
    features = features[: against.distance_images]
    labels = labels[: len(features)]

    def of_class(label: int) -> Estimate | None:
        real = against.mixed_features[against.mixed_labels == label]
        drawn = features[labels == label]
        if min(len(real), len(drawn)) < LEAST_FOR_DISTANCE:
            return None
        without = 1 - torch.eye(PARTS, dtype=torch.float64)
        (means, covariances), others = _moments(real, without), _moments(drawn, without)
        roots, every = _root(covariances), torch.arange(1, PARTS + 1)
        # All of both sides; all but a part of the real images; all but a part of the drawings.
        left = torch.cat([torch.zeros(1).long(), every, torch.zeros(PARTS).long()])
        right = torch.cat([torch.zeros(PARTS + 1).long(), every])
        overlap = torch.linalg.eigvalsh(roots[left] @ others[1][right] @ roots[left])
        distances = _frechet(
            means[left], covariances[left], others[0][right], others[1][right], overlap
        )
        replicates = distances[:1].expand(len(against.weights["real"])).clone()
        for side, left_out in (
            ("real", distances[1 : PARTS + 1]),
            (kind, distances[PARTS + 1 :]),
        ):
            seed = against.classes * ("real", "drawn", "trained").index(side) + label
            picks = resampled(PARTS, torch.Generator().manual_seed(seed))
            replicates += picks @ jackknifed(left_out)
        return Estimate.of(distances[0].item(), replicates)

    with parts_on_threads(available_threads()) as parallel:
        return list(parallel(of_class, range(against.classes)))


def training_distances_by_class(against: EvaluationSet) -> list[Estimate | None]:
    """The distances of the training images of each class, in the drawings' place."""
    return distances_by_class(against, against.trained, against.trained_labels, "trained")


def excess_interval(
    drawn: Estimate | None, real: Estimate | None, variance: float
) -> Interval | None:
    """By how much the Fréchet distance of a class exceeds that of real images, as a fraction of these images'
    variance, at 95 %: at 1 the drawings are as far off as one grey picture, whatever the features. None where
    one of them is not known."""
    if not drawn or not real:
        return None
    low, high = (drawn - real).interval
    return low / variance, high / variance


def variance_by_class(against: EvaluationSet) -> list[float]:
    """The total variance of the features of each class's held-out images; nan of less than two."""
    members = (against.real.features[against.labels == n] for n in range(against.classes))
    return [float(member.double().var(dim=0).sum()) for member in members]


def kernel_distances(real: Tensor, drawn: Tensor, seed: int = 0, subsets: int = SUBSETS) -> Tensor:
    """Unbiased MMD² with the kernel (x·y/D + 1)³ of each subset of at most 1,000: float64 [subsets].
    The metric is their mean. Around 0 for equal distributions whatever the counts; it can lie below."""
    size = min(SUBSET_SIZE, len(real), len(drawn))
    real, drawn = real.double(), drawn.double()
    rng = torch.Generator().manual_seed(seed)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    estimates = []
    for _ in range(subsets):
        x = real[torch.randperm(len(real), generator=rng)[:size]]
        y = drawn[torch.randperm(len(drawn), generator=rng)[:size]]
        xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
        within = xx.sum() - xx.trace() + yy.sum() - yy.trace()  # no image is compared with itself
        estimates.append(within / (size * (size - 1)) - 2 * xy.mean())
    return torch.stack(estimates)


def _moments_of_heldout(against: EvaluationSet) -> tuple[Tensor, Tensor, Tensor]:
    """Means, covariances and their roots."""
    means, covariances = _moments(against.mixed_features, against.weights["real"])
    return means, covariances, _a_core_each(_root, covariances)


def _moments(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of all images (row 0), then of each replicate: means [1+B, D], covariances [1+B, D, D].
    Resamples groups of neighbours, not single images: their sums are taken once."""
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
