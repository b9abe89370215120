"""Diversity of the drawings of each class, beside its real images.

Clark and Evans (Ecology 35, 1954) tell clustered points from scattered ones by the mean distance to the
nearest neighbour, as a fraction of what is expected. Here real images say what is expected, and the distance
is that of `likeness.pairwise_distances`, by which a moved or brightened copy is at 0.

Among more images the nearest is nearer. So each image always has equally many others, at most
MAX_OTHERS: the mean is over all subsets of so many, and thereby unbiased whatever the counts (a U-statistic).
Its noise is the jackknife's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.models.parallel import available_threads, parts_on_threads
from cgan.quality.evaluation import Metric, Score
from cgan.quality.intervals import Estimate, bootstrap_weights, jackknife_replicates
from cgan.quality.likeness import pairwise_distances

# Images among which an image has its nearest one; at most half of a class's. More tell more of repeats, and
# less of spread.
MAX_OTHERS = 24
MAX_DIVERSITY_IMAGES = 250  # images of a class, drawn and real
COPY_DISTANCE = 0.01  # of copies: the distance of two is 0, but for rounding


def diversity_score(by_class: Sequence[Estimate | None]) -> Score | None:
    """The diversity of the class that has least; without an interval, as it is the smallest of many. None
    where no class has a diversity."""
    known = [estimate for estimate in by_class if estimate]
    if not known:
        return None
    replicates = torch.stack([estimate.replicates for estimate in known])
    values = torch.tensor([[estimate.value] for estimate in known], dtype=torch.float64)
    least = Estimate.centred(values.min().item(), replicates.amin(dim=0))
    # Where every class is as diverse as real images, the noise of many makes one of them less so. A class
    # that shows one picture alone has no noise.
    noise = torch.where(values > 0, replicates / values, 1.0)
    real = noise.amin(dim=0).mean().item()
    return replace(least.score(real), interval=None)


WORST_CLASS_DIVERSITY = Metric(
    key="worst_class_diversity",
    name="diversity of the worst class",
    meaning=f"how far a drawing is from the most similar of up to {MAX_OTHERS} others, moved ones included, "
    "in the class that fares worst; 1 is like real",
    kind="number",
    measure=lambda drawn: diversity_score(drawn.diversities),
)


def diversity_by_class(drawn: Tensor, labels: Tensor, training: Images) -> list[Estimate | None]:
    """The mean distance of a drawing to the nearest of MAX_OTHERS of its class, as a fraction of that of
    training images: around 1 for real images. `drawn` uint8 [N, C, H, W] of the classes `labels`.

    None for a class with fewer than four drawings or distinct training images, and where training images
    differ by no more than place and brightness. Sets of equal size are resampled alike, so much of the noise
    of the real images drops out of the difference of two generators.
    """

    def estimate(label: int) -> Estimate | None:
        random = torch.Generator().manual_seed(label)
        real = training.tensors.pixels[training.tensors.labels == label]
        real = real.unique(dim=0)  # a CSV can hold one twice
        real = real[torch.randperm(len(real), generator=random)[:MAX_DIVERSITY_IMAGES]]
        drawings = drawn[labels == label][:MAX_DIVERSITY_IMAGES]
        others = min(MAX_OTHERS, min(len(real), len(drawings)) // 2 - 1)
        if others < 1:
            return None
        drawn_distance = _mean_distance(drawings, others, random)
        real_distance = _mean_distance(real, others, random)
        return drawn_distance / real_distance if real_distance.value > COPY_DISTANCE else None

    with parts_on_threads(available_threads()) as parallel:
        return list(parallel(estimate, range(training.classes)))


def _mean_distance(images: Tensor, others: int, random: torch.Generator) -> Estimate:
    one_way = pairwise_distances(images, images)
    value, left_out = nearest_distance(torch.minimum(one_way, one_way.T), others)
    weights = bootstrap_weights(len(images), random)
    return Estimate.centred(value, jackknife_replicates((weights, left_out)))


def nearest_distance(pairwise: Tensor, others: int) -> tuple[float, Tensor]:
    """The mean distance of an image to the nearest of `others` random ones, and the same without each of the
    images, float64 [N]. `pairwise` [N, N]: the distance of each image to each; `others` at most N - 2."""
    count = len(pairwise)
    pairwise = pairwise.double().fill_diagonal_(math.inf)
    by_rank, rows = (part[:, :-1] for part in pairwise.sort(dim=1))  # without the image itself
    value = (by_rank @ _rank_probabilities(count - 1, others)).mean().item()
    # Without its j-th neighbour, an image's nearer ones keep their rank, and the others move up by one: the
    # mean distance is a sum over the ranks before j, and one over those after.
    probabilities = _rank_probabilities(count - 2, others)
    without = torch.zeros_like(by_rank)
    without[:, 1:] += (by_rank[:, :-1] * probabilities).cumsum(dim=1)
    without[:, :-1] += (by_rank[:, 1:] * probabilities).flip(1).cumsum(dim=1).flip(1)
    left_out = torch.zeros_like(pairwise).scatter_(1, rows, without).sum(dim=0) / (count - 1)
    return value, left_out


def _rank_probabilities(count: int, others: int) -> Tensor:
    """The probability that, of `others` random ones among `count` images, the nearest is the j-th nearest of
    all: float64 [count]. All but that one are then among the `count` - j further ones."""
    subsets = math.comb(count, others)
    chances = [math.comb(count - 1 - rank, others - 1) / subsets for rank in range(count)]
    return torch.tensor(chances, dtype=torch.float64)
