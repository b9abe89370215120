"""Recall and coverage, by nearest neighbours in the judge's features.

Recall: Kynkäänniemi et al., arXiv:1904.06991 (eq. 2); coverage: Naeem et al., arXiv:2002.09797 (eq. 4). Both
with the same k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.quality.estimates import (
    JACKKNIFE_PARTS,
    Estimate,
    Estimates,
    jackknife_replicates,
    wilson_replicates,
)
from cgan.quality.metric import Metric
from cgan.quality.metrics import NEIGHBOURS

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions, Source

MAX_BLOCK_IMAGES = 1000  # real images whose neighbours are looked for, and drawings of a block
MAX_BLOCKS = 20  # of drawings, whose mean is taken
CHUNK = 1000  # images whose distances to all others are held at once

RECALL = Metric(
    key="recall",
    name="recall",
    meaning="share of real images that are in the neighbourhood of a drawing",
    sample_size="neighbour_images",
    measure=lambda drawn: drawn.neighbours["recall"].score(drawn.conditions.real["recall"]),
)
COVERAGE = Metric(
    key="coverage",
    name="coverage",
    meaning="share of real images with a drawing in their neighbourhood",
    sample_size="neighbour_images",
    measure=lambda drawn: drawn.neighbours["coverage"].score(drawn.conditions.real["coverage"]),
)


def neighbour_estimates(conditions: Conditions, features: Tensor, source: Source) -> Estimates:
    """Recall and coverage of features, in the hold-out's class mix: the mean over several blocks of as many
    drawings as real images.

    Replicates have the variance of the jackknife, which leaves out one of JACKKNIFE_PARTS of either side (of
    the drawings, of one block): an image that is picked twice would be its own neighbour.
    """
    real, count = conditions.heldout_block, conditions.block_size
    blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
    by_block = _block_means(real, blocks)
    # Of consecutive rows, for these come class by class in turn: every tenth one could be of one class.
    rests = [
        torch.ones(count, dtype=torch.bool).index_fill(0, part, False)
        for part in torch.arange(count).tensor_split(JACKKNIFE_PARTS)
    ]
    without_real = [_block_means(real[rest], blocks[:2]) for rest in rests]
    without_drawn = [_block_means(real, [blocks[0][rest]]) for rest in rests]
    estimates, weights = {}, conditions.part_weights
    for key, values in by_block.items():
        value = values.mean().item()
        of_real, of_drawn = (
            torch.stack([metrics[key].mean() for metrics in left_out])
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
    """Diversity by nearest neighbours, of features [N, D] and [M, D]: two shares of the real images.

    Recall: those within a drawing's ball (to its k-th neighbour). Coverage: those whose own ball holds a
    drawing.

    Give equal counts: both move with them. O(N²) time, O(N · chunk) memory.
    """
    real_radius, drawn_radius = _radius(real, k), _radius(drawn, k)
    recalled, covered = [], []
    for chunk, chunk_radius in zip(real.split(CHUNK), real_radius.split(CHUNK), strict=True):
        distances = torch.cdist(chunk, drawn)
        recalled.append((distances < drawn_radius).any(dim=1))
        covered.append((distances < chunk_radius[:, None]).any(dim=1))
    return {
        "recall": torch.cat(recalled).double().mean().item(),
        "coverage": torch.cat(covered).double().mean().item(),
    }


def _radius(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself left out → [N]."""
    chunks = points.split(CHUNK)
    return torch.cat([torch.cdist(chunk, points).kthvalue(k + 1, dim=1).values for chunk in chunks])
