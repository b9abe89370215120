"""Precision, recall, density and coverage, by nearest neighbours in the judge's features: formulas, and their
Scores.

Precision, recall: Kynkäänniemi et al., arXiv:1904.06991 (eq. 1, 2); density, coverage: Naeem et al.,
arXiv:2002.09797 (eq. 3, 4). All four with the same k.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cgan.evaluation import METRICS, Score
from cgan.quality.estimates import Estimate, Estimates, jackknifed, scores
from cgan.quality.evaluation_set import PARTS, EvaluationSet
from cgan.quality.metrics import NEIGHBOURS, wilson_interval

MAX_BLOCKS = 20  # of drawings, whose mean is taken
_CHUNK = 1000


def neighbour_scores(
    against: EvaluationSet, draws: Sequence[Tensor], real: Estimates
) -> dict[str, Score]:
    """The scores of several sets of drawings by their features, in the hold-out's mix. `real`: what real
    images get (`memorisation.unbiased`)."""
    return scores([neighbour_estimates(against, each, "drawn") for each in draws], real)


def neighbours_of_training(against: EvaluationSet) -> Estimates:
    """The estimates for training images in the drawings' place."""
    return neighbour_estimates(against, against.trained, "trained")


def neighbour_estimates(against: EvaluationSet, features: Tensor, kind: str) -> Estimates:
    """`manifold`'s, the mean over several blocks of as many drawings as real images.

    Replicates have the variance of the jackknife, which leaves out one of PARTS of either side (of the
    drawings, of one block): an image that is drawn twice would be its own neighbour.
    """
    count = against.block_images
    blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
    by_block = _manifolds(against.block, blocks)
    rest = [torch.arange(count) % PARTS != part for part in range(PARTS)]
    without_real = [_manifolds(against.block[rows], blocks[:2]) for rows in rest]
    without_drawn = [_manifolds(against.block, [blocks[0][rows]]) for rows in rest]
    estimates = {}
    for key, values in by_block.items():
        value = values.mean().item()
        real, drawn = (
            jackknifed(torch.stack([metrics[key].mean() for metrics in without]))
            for without in (without_real, without_drawn)
        )
        replicates = against.weights["real parts"] @ real
        replicates += against.weights[f"{kind} parts"] @ drawn / math.sqrt(len(blocks))
        if METRICS[key].is_share and not replicates.std() > 0:  # all or none: Wilson's interval
            low, high = wilson_interval(round(value * count), count)
            reach = torch.linspace(-1, 1, len(replicates), dtype=torch.float64)
            replicates = (high - low) / 2 / reach.std() * reach
        estimates[key] = Estimate.of(value, replicates)
    return estimates


def _manifolds(real: Tensor, blocks: Sequence[Tensor]) -> dict[str, Tensor]:
    """The metrics of each block, float64 [blocks]; by fewer neighbours where so few images are left."""
    most = min(len(real), *map(len, blocks)) - 1
    by_block = [manifold(real, block, min(NEIGHBOURS, most)) for block in blocks]
    return {key: torch.stack([each[key].mean() for each in by_block]) for key in by_block[0]}


def manifold(real: Tensor, drawn: Tensor, k: int = NEIGHBOURS) -> dict[str, Tensor]:
    """Fidelity (precision, density) and diversity (recall, coverage) by nearest neighbours: a value for each
    image, float64 [N]; the metric is their mean.

    Precision, of each drawing: is it within a real image's ball (to its k-th neighbour)? Recall, of each
    real image, the reverse. Density: how many real balls hold the drawing, over k. Coverage: does the real
    image's ball hold a drawing?

    Give equal counts: all four move with them. O(N²) time, O(N · chunk) memory.
    """
    real_radius, drawn_radius = _radius(real, k), _radius(drawn, k)
    covered = torch.zeros(len(real), dtype=torch.bool)
    balls = []
    for part in drawn.split(_CHUNK):
        inside = torch.cdist(part, real) < real_radius
        balls.append(inside.sum(dim=1))
        covered |= inside.any(dim=0)
    recalled = [(torch.cdist(part, drawn) < drawn_radius).any(dim=1) for part in real.split(_CHUNK)]
    held = torch.cat(balls).double()
    return {
        "precision": (held > 0).double(),
        "recall": torch.cat(recalled).double(),
        "density": held / k,
        "coverage": covered.double(),
    }


def _radius(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself left out → [N]."""
    return torch.cat(
        [torch.cdist(part, points).kthvalue(k + 1, dim=1).values for part in points.split(_CHUNK)]
    )
