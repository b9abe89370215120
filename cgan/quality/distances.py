"""The Fréchet distance in the judge's features, with replicates of the bootstrap.

Heusel et al., arXiv:1706.08500 (eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.evaluation import Score
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.estimates import Estimate
from cgan.quality.metric import Metric

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions, Source
    from cgan.quality.drawn_set import DrawnSet


def _frechet_distance(drawn: DrawnSet) -> Score:
    distance = frechet_estimate(drawn.conditions, drawn.features, "drawn")
    return distance.score(drawn.conditions.real[FRECHET_DISTANCE.key])


FRECHET_DISTANCE = Metric(
    key="fid_judge",
    name="Fréchet distance",
    meaning="how far the drawings are from held-out real images, in the judge's features",
    better="lower",
    kind="number",
    sample_size="distance_images",
    measure=_frechet_distance,
)


def frechet_estimate(conditions: Conditions, features: Tensor, source: Source) -> Estimate:
    """The distance of features, in the hold-out's class mix, from the hold-out."""
    heldout, roots = conditions.heldout_gaussians
    moments = _gaussians(features[: conditions.distance_images], conditions.bin_weights[source])
    eigenvalues = _map_on_cores(torch.linalg.eigvalsh, roots @ moments.covariances @ roots)
    distances = _frechet_distances(heldout, moments, eigenvalues)
    return Estimate.of(distances[0].item(), distances[1:])


@dataclass(frozen=True)
class Gaussians:
    """The moments of several sets of features: means float64 [B, D], covariances [B, D, D]."""

    means: Tensor
    covariances: Tensor


def gaussians_with_roots(
    features: Tensor, weights: Tensor, cuts: Tensor
) -> tuple[Gaussians, Tensor]:
    """The moments of real images, and the roots of the covariances [B, D, D]."""
    moments = _gaussians(features, weights, cuts)
    return moments, _map_on_cores(_root, moments.covariances)


def _gaussians(features: Tensor, weights: Tensor, cuts: Tensor | None = None) -> Gaussians:
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
    return Gaussians(means, (second_moments / totals - outer) * (totals / (totals - 1)))


def _root(covariances: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariances)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return root


def _frechet_distances(real: Gaussians, drawn: Gaussians, eigenvalues: Tensor) -> Tensor:
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
