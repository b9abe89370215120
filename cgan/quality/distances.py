"""The Fréchet distance in the judge's features, with replicates of the bootstrap.

Heusel et al., arXiv:1706.08500 (eq. 6).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.estimates import Estimate
from cgan.quality.evaluation_set import EvaluationSet, Source


def distance_of_training(evaluation_set: EvaluationSet) -> Estimate:
    """The distance of training images in the drawings' place."""
    return frechet_estimate(evaluation_set, evaluation_set.training_features, "training")


def frechet_estimate(evaluation_set: EvaluationSet, features: Tensor, source: Source) -> Estimate:
    """The distance of features, in the hold-out's class mix, from the hold-out."""
    heldout, roots = evaluation_set.compute_once(_moments_of_heldout)
    features = features[: evaluation_set.distance_images]
    moments = _moments(features, evaluation_set.bin_weights[source])
    eigenvalues = _map_on_cores(torch.linalg.eigvalsh, roots @ moments.covariances @ roots)
    distances = _frechet_distances(heldout, moments, eigenvalues)
    return Estimate.of(distances[0].item(), distances[1:])


@dataclass(frozen=True)
class _Moments:
    """The moments of several sets of features: means float64 [B, D], covariances [B, D, D]."""

    means: Tensor
    covariances: Tensor


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
