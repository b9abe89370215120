"""Metrics that compare sets of the judge's features: the Fréchet distance, recall and coverage.

Heusel et al., arXiv:1706.08500 (eq. 6); Kynkäänniemi et al., arXiv:1904.06991 (eq. 2); Naeem et al.,
arXiv:2002.09797 (eq. 4). The last two are by nearest neighbours, both with the same k.

What real images get is what those get that the judge has not seen. None are left for that, so training images
take the drawings' place, and the judge's memorisation bias is taken off: how they differ from held-out
images, when both are set beside other held-out ones. Its noise is part of the score's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.models.hardware import available_threads, parts_on_threads
from cgan.quality.evaluation import Metric
from cgan.quality.intervals import (
    JACKKNIFE_PARTS,
    Bins,
    Estimate,
    Estimates,
    jackknife_replicates,
    wilson_replicates,
)
from cgan.quality.judge import frechet_distance

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions, Source

NEIGHBOURS = 5  # k of recall and coverage (Naeem et al.)
MAX_BLOCK_IMAGES = 1000  # real images whose neighbours are looked for, and drawings of a block
MAX_BLOCKS = 20  # of drawings, whose mean is taken
DISTANCE_ROWS = 1000  # images whose distances to all others are held at once
HOLDOUT_SPLITS = 8  # into halves, each of which is set beside the other
MIN_HALF_IMAGES = 50

FRECHET_DISTANCE = Metric(
    key="fid_judge",
    name="Fréchet distance",
    meaning="how far the drawings are from held-out real images, in the judge's features",
    better="lower",
    kind="number",
    sample_size="distance_images",
)
RECALL = Metric(
    key="recall",
    name="recall",
    meaning="share of real images that are in the neighbourhood of a drawing",
    sample_size="neighbour_images",
)
COVERAGE = Metric(
    key="coverage",
    name="coverage",
    meaning="share of real images with a drawing in their neighbourhood",
    sample_size="neighbour_images",
)


def feature_estimates(conditions: Conditions, features: Tensor, source: Source) -> Estimates:
    """The three metrics of features in the hold-out's class mix, beside the hold-out."""
    distance = frechet_estimate(conditions, features, source)
    return {FRECHET_DISTANCE.key: distance, **neighbour_estimates(conditions, features, source)}


# -- Fréchet distance ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The moments of several sets of features: means float64 [B, D], covariances [B, D, D]."""

    means: Tensor
    covariances: Tensor

    @classmethod
    def of(cls, features: Tensor, bins: Bins) -> Gaussians:
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


def frechet_estimate(conditions: Conditions, features: Tensor, source: Source) -> Estimate:
    """The distance of features from the hold-out, as `frechet_distance` computes it, with replicates of the
    bootstrap."""
    real = conditions.heldout_gaussians
    drawn = Gaussians.of(features[: conditions.distance_images], conditions.bins[source])
    products = real.roots @ drawn.covariances @ real.roots
    eigenvalues = _map_on_cores(torch.linalg.eigvalsh, products)
    shift = (real.means - drawn.means).square().sum(dim=1)
    traces = sum(each.covariances.diagonal(dim1=1, dim2=2).sum(dim=1) for each in (real, drawn))
    root_traces = eigenvalues.clamp(min=0).sqrt().sum(dim=1)
    distances = (shift + traces - 2 * root_traces).clamp(min=0)
    return Estimate.of(distances[0].item(), distances[1:])


def _map_on_cores(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """`function` of all matrices [B, D, D], some of them on each core: LAPACK's own threads, on matrices as
    small as these, took 20 times as long as one thread."""
    parts = available_threads()
    with parts_on_threads(parts) as parallel:
        return torch.cat(list(parallel(function, matrices.tensor_split(parts))))


# -- Recall and coverage ---------------------------------------------------------------------------------


def neighbour_estimates(conditions: Conditions, features: Tensor, source: Source) -> Estimates:
    """Recall and coverage: the mean over several blocks of as many drawings as real images.

    Replicates have the variance of the jackknife, which leaves out one of JACKKNIFE_PARTS of either side (of
    the drawings, of one block): an image that is picked twice would be its own neighbour.
    """
    real = conditions.heldout_block
    count = len(real)
    blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
    # Of consecutive rows, for these come class by class in turn: every tenth one could be of one class.
    rests = [
        torch.ones(count, dtype=torch.bool).index_fill(0, part, False)
        for part in torch.arange(count).tensor_split(JACKKNIFE_PARTS)
    ]
    without_real = [_block_means(real[rest], blocks[:2]) for rest in rests]
    without_drawn = [_block_means(real, [blocks[0][rest]]) for rest in rests]
    weights = conditions.part_weights
    estimates = {}
    for key, values in _block_means(real, blocks).items():
        value = values.mean().item()
        of_real, of_drawn = (
            torch.stack([shares[key].mean() for shares in left_out])
            for left_out in (without_real, without_drawn)
        )
        replicates = jackknife_replicates(
            (weights["heldout"], of_real), (weights[source], of_drawn / math.sqrt(len(blocks)))
        )
        if not replicates.std() > 0:
            replicates = wilson_replicates(value, count)
        estimates[key] = Estimate.of(value, replicates)
    return estimates


def _block_means(real: Tensor, blocks: Sequence[Tensor]) -> dict[str, Tensor]:
    """The metrics of each block, float64 [blocks]; by fewer neighbours where so few images are left."""
    k = min(NEIGHBOURS, len(real) - 1, *(len(block) - 1 for block in blocks))
    by_block = [neighbour_shares(real, block, k) for block in blocks]
    return {
        key: torch.tensor([shares[key] for shares in by_block], dtype=torch.float64)
        for key in by_block[0]
    }


def neighbour_shares(real: Tensor, drawn: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Two shares of the real images, of features [N, D] and [M, D].

    Recall: those within a drawing's ball (to its k-th neighbour). Coverage: those whose own ball holds a
    drawing.

    Give equal counts: both move with them. O(N²) time, O(N · DISTANCE_ROWS) memory.
    """
    real_radius = _radius(real, k)
    drawn_radius = _radius(drawn, k)
    recalled, covered = [], []
    for rows, radius in zip(
        real.split(DISTANCE_ROWS), real_radius.split(DISTANCE_ROWS), strict=True
    ):
        distances = torch.cdist(rows, drawn)
        recalled.append((distances < drawn_radius).any(dim=1))
        covered.append((distances < radius[:, None]).any(dim=1))
    return {
        RECALL.key: torch.cat(recalled).double().mean().item(),
        COVERAGE.key: torch.cat(covered).double().mean().item(),
    }


def _radius(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself left out → [N]."""
    distances = (torch.cdist(rows, points) for rows in points.split(DISTANCE_ROWS))
    return torch.cat([each.kthvalue(k + 1, dim=1).values for each in distances])


# -- What real images get --------------------------------------------------------------------------------


def real_estimates(conditions: Conditions) -> Estimates:
    """The three metrics of real images that the judge has not seen: those of training images, less the
    bias."""
    estimates = {}
    training = feature_estimates(conditions, conditions.training_features, "training")
    for key, of_training in training.items():
        bias = conditions.bias.get(key)
        less = of_training - bias if bias else of_training
        most = math.inf if key == FRECHET_DISTANCE.key else 1.0
        estimates[key] = Estimate.of(min(less.value, most), less.replicates)
    return estimates


def memorisation_bias(conditions: Conditions) -> Estimates:
    """The excess of training images over as many held-out ones, class by class, beside other held-out ones:
    the mean over HOLDOUT_SPLITS, in either direction. Empty where the hold-out, or the training images of a
    class, are too few."""
    random = torch.Generator().manual_seed(conditions.params.seed)
    heldout = conditions.heldout.features
    training = conditions.training_features
    labels = conditions.held_out.tensors.labels
    sets = []
    for _ in range(HOLDOUT_SPLITS):
        rows = torch.randperm(len(labels), generator=random)
        rows = rows[labels[rows].argsort(stable=True)]
        # Every second row of each class; of an odd count, the last row is left out.
        halves = rows[0::2][: len(rows) // 2], rows[1::2]
        order = torch.randperm(len(training), generator=random)
        for reference, others in (halves, halves[::-1]):
            counts = torch.bincount(labels[others], minlength=conditions.classes)
            picked = order[_first_rows(conditions.training_labels[order], counts)]
            if not MIN_HALF_IMAGES <= len(others) == len(picked):
                return {}
            mixed = torch.randperm(len(others), generator=random)  # all were sorted by class
            sets.append(
                (heldout[reference[mixed]], training[picked[mixed]], heldout[others[mixed]])
            )
            order = order.flip(0)  # the other direction has other training images
    with parts_on_threads(available_threads()) as parallel:
        excesses = list(parallel(lambda features: _excess(*features), sets))
    replicates = len(conditions.part_weights["heldout"])
    picks = torch.randint(len(sets), (replicates,), generator=random)
    deviation = deviation_of_mean(len(sets), len(sets[0][1]) / len(training))
    estimates = {}
    for key in excesses[0]:
        values = torch.tensor([excess[key] for excess in excesses], dtype=torch.float64)
        estimates[key] = Estimate.of(values.mean().item(), deviation * values[picks])
    return estimates


def deviation_of_mean(sets: int, fraction: float) -> float:
    """The standard deviation of the mean excess of so many sets, as a fraction of that of a single set's.
    `fraction`: of the training images, that a set has.

    Let 1 be the variance that the hold-out's choice gives the mean. From half to half a value varies just as
    much, for halves deviate from the whole hold-out as that does from all images (McCarthy, Review of the
    International Statistical Institute 37, 1969). A set's training images are half as many, so their choice
    adds a variance of 2: of a mean, σ²/N for all N, which sets share as they share the hold-out, and
    σ²/m · (1 - m/N) for the choice of m among them, which falls with the number of sets.
    """
    of_heldout, of_training = 1.0, 2.0
    of_mean = of_training * (fraction + (1 - fraction) / sets)
    return math.sqrt((of_heldout + of_mean) / (of_heldout + of_training))


def _excess(real: Tensor, training: Tensor, heldout: Tensor) -> dict[str, float]:
    """Each metric of `training` less that of `heldout`, both beside `real`: features [N, D] with one N."""

    def metrics(features: Tensor) -> dict[str, float]:
        most = MAX_BLOCK_IMAGES // 2
        shares = neighbour_shares(real[:most], features[:most])
        return {FRECHET_DISTANCE.key: frechet_distance(real, features), **shares}

    of_training, of_heldout = metrics(training), metrics(heldout)
    return {key: value - of_heldout[key] for key, value in of_training.items()}


def _first_rows(labels: Tensor, counts: Tensor) -> Tensor:
    """Rows of the first images of each class, as many as `counts` [classes] asks for or all there are, in
    order of the classes."""
    available = labels.bincount(minlength=len(counts)).tolist()
    by_class = labels.argsort(stable=True).split(available)
    return torch.cat([rows[:count] for rows, count in zip(by_class, counts.tolist(), strict=True)])
