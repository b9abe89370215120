"""Likeness of images, however moved or brightened, and drawings that are near copies of training images: the
metric *copies*.

The distance of two images is the part of the one's contrast (its standard deviation) that remains when the
other is taken from it, moved by up to MAX_SHIFT pixels and with the brightness and contrast that fit best: 0
for a copy, 1 where they have nothing in common. It is √(1-r²), with r the largest correlation. (In
`cgan.privacy` brightness tells a member from another image, so there the distance is that of the pixels.)

Copies may be turned or noisy too: with the nearest candidates an image is compared again so, and smoothed.
Which distances are near is known from real images that are not among the candidates.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.images import Images
from cgan.models.parallel import available_threads, parts_on_threads
from cgan.quality.evaluation import Metric, Score
from cgan.quality.proportions import proportion_interval

MAX_SHIFT = 2  # pixels; less in images that are less than 16 pixels wide
MAX_COMPARED_SIDE = 32  # pixels: larger images are made smaller
# Drawings, and held-out images, that are compared with training images; of drawings more, where so many are
# fewer than MIN_COMPARED_PER_CLASS for each class.
MAX_COMPARED = 2000
MIN_COMPARED_PER_CLASS = 10
MIN_REAL_COMPARED = 1000  # real images that show which distances are usual
CANDIDATES = 5  # the nearest images, with which an image is compared again as it is turned
TURNS = (-8, -4, 0, 4, 8)  # degrees
MIN_IMAGES_FOR_LIMIT = 20  # of a class; with fewer its limit is that of all classes
Z_99 = 2.33  # the 99 % quantile of a normal distribution
DEVIATIONS_PER_MAD = 1.4826  # its standard deviation over its median absolute deviation
MAX_BLOCK_PIXELS = 2_000_000  # that are held as floats at once


class NearCopies(NamedTuple):
    """`is_copy`, bool [N], marks the drawings that are nearer to a training image of their class than real
    images are; `real`: the share of real images that are as near; `labels`: the drawings' classes;
    `real_by_class`, int64 [classes, 2]: how many real images are as near, of how many."""

    is_copy: Tensor
    real: float
    labels: Tensor
    real_by_class: Tensor

    @property
    def score(self) -> Score:
        """The share of the drawings that are near copies."""
        value = self.is_copy.double().mean().item()
        interval = proportion_interval(value, len(self.is_copy))
        return Score(value=value, real=self.real, interval=interval)


COPIES = Metric(
    key="copies",
    name="copies",
    meaning="drawings nearer to a training image than unseen real images are, even if moved, turned or noisy",
    better="lower",
    measure=lambda drawn: drawn.near_copies.score,
)


def find_near_copies(
    drawn: Tensor, drawn_labels: Tensor, training: Images, held_out: Images, seed: int
) -> NearCopies:
    """The near copies among the first drawings, uint8 [N, C, H, W]. What is near is known from real images:
    at most MAX_COMPARED held-out ones and, where these are fewer than MIN_REAL_COMPARED, some of the training
    images, each compared with all the others."""
    count = max(MAX_COMPARED, MIN_COMPARED_PER_CLASS * training.classes)
    drawn, drawn_labels = drawn[:count], drawn_labels[:count]
    # A CSV can be sorted by class: a part of it is picked from all of it.
    random = torch.Generator().manual_seed(seed)
    training_order = torch.randperm(len(training), generator=random)
    held_out_order = torch.randperm(len(held_out), generator=random)
    real, real_labels, _ = held_out.at(held_out_order[:MAX_COMPARED]).tensors
    own_rows = training_order[: max(0, MIN_REAL_COMPARED - len(real_labels))]
    real_distances = _closest(real, real_labels, training)
    if len(own_rows):
        own, own_labels, _ = training.at(own_rows).tensors
        own_distances = _closest(own, own_labels, training, own_rows)
        real_distances = torch.cat([real_distances, own_distances])
        real_labels = torch.cat([real_labels, own_labels])
    limits = _limits(real_distances, real_labels, training.classes)
    is_near = real_distances < limits[real_labels]
    pairs = torch.stack([is_near, torch.ones_like(is_near)], dim=1).long()
    real_by_class = torch.zeros(training.classes, 2).long().index_add_(0, real_labels, pairs)
    is_copy = _closest(drawn, drawn_labels, training) < limits[drawn_labels]
    return NearCopies(is_copy, is_near.double().mean().item(), drawn_labels, real_by_class)


def _limits(real_distances: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The distance that all but 1 % of the real images of each class would keep from training images, were it
    log-normal, [classes]: by the median of the logarithms and the deviations from it, which some twins across
    the split do not change. Of real images 1.3 to 4.6 % did not keep it, which `NearCopies.real` counts.
    """

    def limit(distances: Tensor) -> Tensor:
        logs = distances[distances.isfinite()].clamp(min=0.001).log()
        median = logs.median()
        deviation = DEVIATIONS_PER_MAD * (logs - median).abs().median()
        return (median - Z_99 * deviation).exp()

    overall = limit(real_distances)
    by_class = [real_distances[labels == label] for label in range(classes)]
    return torch.stack(
        [limit(each) if len(each) >= MIN_IMAGES_FOR_LIMIT else overall for each in by_class]
    )


def _closest(
    images: Tensor, labels: Tensor, training: Images, own_rows: Tensor | None = None
) -> Tensor:
    """The least distance of each image, turned, to the CANDIDATES nearest training images of its class, all
    smoothed, float32 [N]. `own_rows`: those of training images, which are left out."""
    known, known_labels, _ = training.tensors
    found, rows = nearest_neighbours(images, labels, known, known_labels, CANDIDATES + 1)
    if own_rows is not None:
        found[rows == own_rows[:, None]] = math.inf
    found, order = found.topk(CANDIDATES, dim=1, largest=False)
    rows = rows.gather(1, order)
    shifts = (2 * MAX_SHIFT + 1) ** 2
    block = max(1, MAX_BLOCK_PIXELS // (CANDIDATES * shifts * images[0].numel()))
    blocks = zip(images.split(block), rows.split(block), strict=True)
    with parts_on_threads(available_threads()) as parallel:
        turned = parallel(lambda block: _turned_distances(block[0], known[block[1]]), blocks)
        distances = torch.cat(list(turned))
    return distances.where(found.isfinite(), math.inf).amin(dim=1)


def _turned_distances(images: Tensor, candidates: Tensor) -> Tensor:
    """The least distance of each image, turned, to its own candidates [N, K, C, H, W], moved: [N, K]."""
    images, candidates = (
        F.avg_pool2d(_downscale(side), 3, 1) for side in (images, candidates.flatten(0, 1))
    )
    count, _, height, width = images.shape
    # The candidates are moved, once for all turns. Of smoothed images every second pixel will do.
    moved = _windows(candidates)[..., ::2, ::2].permute(0, 2, 3, 1, 4, 5)
    shifts = moved.shape[1] * moved.shape[2]
    moved = _directions(moved.flatten(0, 2)).view(count, -1, moved[0, 0, 0].numel() + 1)
    middles = []
    for turn in TURNS:
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        matrix = torch.tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
        grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)
        grid = grid.expand(count, -1, -1, -1)
        turned = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        middles.append(_directions(_middle(_windows(turned))[..., ::2, ::2]))
    correlations = moved @ torch.stack(middles, dim=2)
    best = correlations.amax(dim=2).view(count, -1, shifts).amax(dim=2)
    return _unexplained_contrast(best)


def nearest_neighbours(
    images: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Distances of each image to the nearest ones in `reference` of its class, and their rows: of images
    uint8 [N, C, H, W], float32 and int64 [N, count], nearest first; infinite and -1 where the class has
    fewer."""
    found = torch.full((len(images), count), math.inf)
    found_rows = torch.full((len(images), count), -1)
    block = max(1, MAX_BLOCK_PIXELS // images[0].numel())

    def search(label: Tensor) -> None:
        members = (labels == label).nonzero()[:, 0]
        others = (reference_labels == label).nonzero()[:, 0]
        for queries in members.split(block):
            for rows in others.split(block):
                new = pairwise_distances(images[queries], reference[rows])
                pool = torch.cat([found[queries], new], dim=1)
                pool_rows = torch.cat([found_rows[queries], rows.expand(len(queries), -1)], dim=1)
                found[queries], order = pool.topk(count, dim=1, largest=False)
                found_rows[queries] = pool_rows.gather(1, order)

    with parts_on_threads(available_threads()) as parallel:
        list(parallel(search, labels.unique()))
    return found, found_rows


def pairwise_distances(images: Tensor, reference: Tensor) -> Tensor:
    """The distance of each image to each of the reference, moved: both uint8 [N, C, H, W] → float32 [N, M].
    The middle of the reference is compared, without the edge that a shift would move outside."""
    windows = _windows(_downscale(images))
    middles = _directions(_middle(_windows(_downscale(reference)))).T
    correlations = torch.zeros(len(images), middles.shape[1])
    for y in range(windows.shape[2]):
        for x in range(windows.shape[3]):
            moved = _directions(windows[:, :, y, x])
            torch.maximum(correlations, moved @ middles, out=correlations)
    return _unexplained_contrast(correlations)


def _windows(images: Tensor) -> Tensor:
    """The parts of images that come to lie in the middle by each shift: [N, C, shifts down, shifts right, H,
    W], a view."""
    height, width = (side - 2 * min(MAX_SHIFT, side // 8) for side in images.shape[2:])
    return images.unfold(2, height, 1).unfold(3, width, 1)


def _middle(windows: Tensor) -> Tensor:
    """Those without a shift, [N, C, H, W]."""
    return windows[:, :, windows.shape[2] // 2, windows.shape[3] // 2]


def _unexplained_contrast(correlations: Tensor) -> Tensor:
    return (1 - correlations.clamp(0, 1).square()).sqrt()


def _downscale(images: Tensor) -> Tensor:
    height, width = (min(MAX_COMPARED_SIDE, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float(), (height, width))


def _directions(images: Tensor) -> Tensor:
    """Each image less its mean and of length 1, float [N, pixels + 1]. One more value stands for a grey level
    of contrast: images of one colour are alike, and not like others."""
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return F.normalize(F.pad(flat, (0, 1), value=math.sqrt(flat.shape[1])), dim=1)
