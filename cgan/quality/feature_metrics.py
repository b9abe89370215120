"""Metrics that compare sets of the judge's features: the Fréchet distance, recall and coverage.

Heusel et al., arXiv:1706.08500 (eq. 6); Kynkäänniemi et al., arXiv:1904.06991 (eq. 2); Naeem et al.,
arXiv:2002.09797 (eq. 4). The last two are by nearest neighbours, both with the same k.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cgan.models.parallel import available_threads, parts_on_threads
from cgan.quality.evaluation import Metric
from cgan.quality.intervals import Bins, Estimate
from cgan.quality.judge import frechet_distance

NEIGHBOURS = 5  # k of recall and coverage (Naeem et al.)
MAX_BLOCK_IMAGES = 1000  # real images whose neighbours are looked for, and drawings of a block


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The moments of several sets of features: means float64 [B, D], covariances [B, D, D]."""

    means: Tensor
    covariances: Tensor

    @classmethod
    def fit(cls, features: Tensor, bins: Bins) -> "Gaussians":
        """The moments of all images (row 0), then of each replicate."""
        once = torch.ones(1, bins.weights.shape[1], dtype=torch.float64)
        weights = torch.cat([once, bins.weights])
        parts = features.double().tensor_split(bins.cuts)
        counts = torch.tensor([len(part) for part in parts], dtype=torch.float64)
        sums = torch.stack([part.sum(dim=0) for part in parts])
        squares = torch.stack([part.T @ part for part in parts])
        totals = (weights @ counts)[:, None]
        means = weights @ sums / totals
        second_moments = (weights @ squares.flatten(1)).view(-1, *squares.shape[1:])
        outer = means[:, :, None] * means[:, None, :]
        totals = totals[:, :, None]
        return cls(means, (second_moments / totals - outer) * (totals / (totals - 1)))

    @cached_property
    def roots(self) -> Tensor:
        """The roots of the covariances, [B, D, D]."""

        def root(covariances: Tensor) -> Tensor:
            values, vectors = torch.linalg.eigh(covariances)
            product: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
            return product

        return _map_on_cores(root, self.covariances)

    def distance(self, drawn: "Gaussians") -> Estimate:
        """The distance as `frechet_distance` computes it, with replicates of the bootstrap."""
        eigenvalues = _map_on_cores(
            torch.linalg.eigvalsh, self.roots @ drawn.covariances @ self.roots
        )
        shift = (self.means - drawn.means).square().sum(dim=1)
        traces = sum(each.covariances.diagonal(dim1=1, dim2=2).sum(dim=1) for each in (self, drawn))
        root_traces = eigenvalues.clamp(min=0).sqrt().sum(dim=1)
        distances = (shift + traces - 2 * root_traces).clamp(min=0)
        return Estimate.centred(distances[0].item(), distances[1:])


def _map_on_cores(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """`function` of all matrices [B, D, D], some of them on each core: LAPACK's own threads, on matrices as
    small as these, took 20 times as long as one thread."""
    parts = available_threads()
    with parts_on_threads(parts) as parallel:
        return torch.cat(list(parallel(function, matrices.tensor_split(parts))))


FRECHET_DISTANCE = Metric(
    key="fid_judge",
    name="Fréchet distance",
    meaning="how far the drawings are from held-out real images, in the judge's features",
    better="lower",
    kind="number",
    sample_size_key="distance_images",
    measure=lambda drawn: drawn.beside_real("fid_judge"),
)


def neighbour_shares(real: Tensor, drawn: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Recall and coverage, float64 [2], of features [N, D] and [M, D]: the share of the real images that are
    within a drawing's ball (to its k-th neighbour), and of those whose own ball holds a drawing.

    Give equal counts: both move with them. O(N²) time and memory.
    """
    distances = torch.cdist(real, drawn)
    recalled = (distances < _radius(drawn, k)).any(dim=1)
    covered = (distances < _radius(real, k)[:, None]).any(dim=1)
    return torch.stack([recalled, covered]).double().mean(dim=1)


def _radius(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself left out → [N]."""
    return torch.cdist(points, points).kthvalue(k + 1, dim=1).values


def mean_shares(real: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """The mean recall and coverage of the blocks, [2]; by fewer neighbours where so few images are left."""
    k = min(NEIGHBOURS, len(real) - 1, *(len(block) - 1 for block in blocks))
    return torch.stack([neighbour_shares(real, block, k) for block in blocks], dim=1).mean(dim=1)


RECALL = Metric(
    key="recall",
    name="recall",
    meaning="share of real images that are in the neighbourhood of a drawing",
    sample_size_key="neighbour_images",
    measure=lambda drawn: drawn.beside_real("recall"),
)
COVERAGE = Metric(
    key="coverage",
    name="coverage",
    meaning="share of real images with a drawing in their neighbourhood",
    sample_size_key="neighbour_images",
    measure=lambda drawn: drawn.beside_real("coverage"),
)
FEATURE_METRICS = (FRECHET_DISTANCE.key, RECALL.key, COVERAGE.key)


def memorisation_bias(real: Tensor, training: Tensor, held_out: Tensor) -> Tensor:
    """Each of FEATURE_METRICS of `training` less that of `held_out`, both beside `real`: float64 [3], of
    features [N, D] with one N."""

    def metrics(features: Tensor) -> Tensor:
        distance = torch.tensor([frechet_distance(real, features)], dtype=torch.float64)
        most = MAX_BLOCK_IMAGES // 2
        return torch.cat([distance, neighbour_shares(real[:most], features[:most])])

    return metrics(training) - metrics(held_out)


def deviation_of_mean(sets: int, fraction: float) -> float:
    """The standard deviation of the mean excess of so many sets, as a fraction of that of a single set's.
    `fraction`: of the training images, that a set has.

    Let 1 be the variance that the hold-out's choice gives the mean. From half to half a value varies just as
    much, for halves deviate from the whole hold-out as that does from all images (McCarthy, Review of the
    International Statistical Institute 37, 1969). A set's training images are half as many, so their choice
    adds a variance of 2: of a mean, σ²/N for all N, which sets share as they share the hold-out, and
    σ²/m · (1 - m/N) for the choice of m among them, which falls with the number of sets.
    """
    of_held_out, of_training = 1.0, 2.0
    of_mean = of_training * (fraction + (1 - fraction) / sets)
    return math.sqrt((of_held_out + of_mean) / (of_held_out + of_training))
