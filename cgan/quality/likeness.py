"""How alike images are, however moved or brightened, and which drawings are replicas of training images: the
metric *copies*, its formula and its Score.

The distance of two images is the part of the first one's contrast (its standard deviation) that remains when
the second is taken from it, moved by up to MAX_SHIFT pixels and with the brightness and contrast that fit
best: 0 for a copy, 1 where they have nothing in common. It is √(1-r²), with r the largest correlation.

Copies may be turned, zoomed, slanted or noisy too: with the nearest candidates an image is compared again so,
and smoothed. What is near is known from real images that are not among the candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.evaluation import Score
from cgan.images import Images
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import proportion_interval

MAX_SHIFT = 2  # pixels; less in images that are less than 16 pixels wide
SIDE = 32  # pixels: larger images are made smaller
AT_MOST = 2000  # drawings and held-out images that are compared with training images; more where there are
LEAST = 10  # … fewer of a class
ENOUGH = 1000  # real images that show what is usual
CANDIDATES = 5  # the nearest images, for which an image is turned (degrees), zoomed and slanted
TURNS, ZOOMS = (-8, -4, 0, 4, 8), (0.9, 1.0, 1.1)
SHEARS = (-0.3, -0.2, -0.1, 0.1, 0.2, 0.3)  # along rows, and along columns
FEW = 20  # images of a class: with less, all classes say what is usual
# The 99 % quantile of a normal distribution; its standard deviation over its median absolute deviation.
QUANTILE_99, DEVIATIONS_PER_MAD = 2.33, 1.4826
_BLOCK = 2_000_000  # pixels that are held as floats at once


@dataclass(frozen=True)
class Replicas:
    """`is_replica`, bool [N], marks the drawings that are nearer to a training image of their class than real
    images are; of real images the share `real` is that near; `labels`: their classes. `heldout_median`: the
    distance of a held-out image to the nearest one."""

    is_replica: Tensor
    real: float
    heldout_median: float
    labels: Tensor

    def by_class(self, classes: int) -> tuple[list[int], list[int]]:
        """How many drawings of each class are replicas, and how many were looked at."""
        replicas = self.labels[self.is_replica].bincount(minlength=classes)
        return replicas.tolist(), self.labels.bincount(minlength=classes).tolist()


def copies_score(found: Replicas, estimate: Estimate) -> Score:
    """The metric `copies`: the proportion of the drawings that are replicas (`estimate`)."""
    return replace(
        estimate.score("copies", found.real),
        interval=proportion_interval(estimate.value, len(found.is_replica)),
        details={"heldout_nearest_median": found.heldout_median},
    )


def find_replicas(
    drawn: Tensor, drawn_labels: Tensor, training: Images, heldout: Images, seed: int
) -> Replicas:
    """How near the first drawings (uint8 [N, C, H, W]) of the classes `drawn_labels` come to training images,
    and how near real images do: at most AT_MOST held-out ones and, where these are fewer than ENOUGH, some
    of the training images, each compared with all the others."""
    most = max(AT_MOST, LEAST * training.classes)
    drawn, drawn_labels = drawn[:most], drawn_labels[:most]
    # A CSV can be sorted by class: a part of it is picked from all of it.
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(training), generator=random)
    real = heldout.at(torch.randperm(len(heldout), generator=random)[:AT_MOST])
    labels, own_rows = real.tensors.labels, order[: max(0, ENOUGH - len(real))]
    _, near = _closest(drawn, drawn_labels, None, training)
    plain, usual = _closest(real.tensors.pixels, labels, None, training)
    if len(own_rows):
        some = training.at(own_rows)
        usual = torch.cat(
            [usual, _closest(some.tensors.pixels, some.tensors.labels, own_rows, training)[1]]
        )
        labels = torch.cat([labels, some.tensors.labels])
    limits = _limits(usual, labels, training.classes)
    real_share = (usual < limits[labels]).double().mean().item()
    is_replica = near < limits[drawn_labels]
    return Replicas(is_replica, real_share, plain.median().item(), drawn_labels)


def _limits(usual: Tensor, labels: Tensor, classes: int) -> Tensor:
    """What all but 1 % of the real images of each class keep from training images, [classes]: by the median
    of the logarithms and the deviations from it, which some twins across the split do not change."""

    def limit(distances: Tensor) -> Tensor:
        logs = distances[distances.isfinite()].clamp(min=0.001).log()
        median = logs.median()
        deviation = DEVIATIONS_PER_MAD * (logs - median).abs().median()
        return (median - QUANTILE_99 * deviation).exp()

    by_class = [usual[labels == label] for label in range(classes)]
    return torch.stack([limit(apart if len(apart) >= FEW else usual) for apart in by_class])


def _closest(
    images: Tensor, labels: Tensor, own_rows: Tensor | None, training: Images
) -> tuple[Tensor, Tensor]:
    """For each image the distance to the nearest training image of its class; and, among the CANDIDATES
    nearest, the least distance with the image turned, zoomed or slanted and both smoothed. `own_rows`: of
    training images, their own rows, which are left out."""
    apart, rows = nearest(
        images, labels, training.tensors.pixels, training.tensors.labels, CANDIDATES + 1
    )
    if own_rows is not None:
        apart[rows == own_rows[:, None]] = math.inf
    apart, order = apart.topk(CANDIDATES, dim=1, largest=False)
    rows = rows.gather(1, order)
    size = max(1, _BLOCK // (CANDIDATES * (2 * MAX_SHIFT + 1) ** 2 * images[0].numel()))
    with parts_on_threads(available_threads()) as parallel:
        pieces = parallel(
            lambda piece: _turned(piece[0], training.tensors.pixels[piece[1].flatten()]),
            zip(images.split(size), rows.split(size), strict=True),
        )
        turned = torch.cat(list(pieces))
    return apart[:, 0], turned.where(apart.isfinite(), math.inf).amin(dim=1)


def _turned(images: Tensor, candidates: Tensor) -> Tensor:
    """The distances of each of N images to its own K candidates [N * K, C, H, W], → float32 [N, K]."""
    images, candidates = (F.avg_pool2d(_smaller(part), 3, 1) for part in (images, candidates))
    count, _, height, width = images.shape
    down, right, rows, columns = _window(height, width)
    # The candidates are moved, once for all turns. Of smoothed images every second pixel will do.
    moved = candidates.unfold(2, rows, 1).unfold(3, columns, 1)[..., ::2, ::2]
    moved = moved.permute(0, 2, 3, 1, 4, 5)
    moved = _directions(moved.flatten(0, 2)).view(count, -1, moved[0, 0, 0].numel() + 1)
    middles = []
    for move in _moves(height, width):
        grid = F.affine_grid(move, [1, 1, height, width], align_corners=False)
        grid = grid.expand(count, -1, -1, -1)
        turned = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        middle = turned[:, :, down : down + rows : 2, right : right + columns : 2]
        middles.append(_directions(middle))
    likeness = moved @ torch.stack(middles, dim=2)
    best = likeness.amax(dim=2).view(count, -1, (2 * down + 1) * (2 * right + 1)).amax(dim=2)
    return _part(best)


def _moves(height: int, width: int) -> Iterator[Tensor]:
    """Each turn at each zoom, and each slant, as what `affine_grid` takes: [1, 2, 3]."""
    for turn in TURNS:
        for zoom in ZOOMS:
            cos, sin = math.cos(math.radians(turn)) / zoom, math.sin(math.radians(turn)) / zoom
            yield torch.tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    for shear in SHEARS:
        yield torch.tensor([[[1, shear * height / width, 0], [0.0, 1, 0]]])
        yield torch.tensor([[[1.0, 0, 0], [shear * width / height, 1, 0]]])


def nearest(
    images: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Distances of each image to the nearest ones in `reference` of its class, and their rows.

    Images uint8 [N, C, H, W], labels int64 [N] → float32 and int64 [N, count], nearest first; infinite and -1
    where the class has fewer.
    """
    closest = torch.full((len(images), count), math.inf)
    places = torch.full((len(images), count), -1)
    size = max(1, _BLOCK // images[0].numel())

    def search(label: Tensor) -> None:
        members = (labels == label).nonzero()[:, 0]
        others = (reference_labels == label).nonzero()[:, 0]
        for some in members.split(size):
            for block in others.split(size):
                apart = torch.cat([closest[some], distances(images[some], reference[block])], dim=1)
                rows = torch.cat([places[some], block.expand(len(some), -1)], dim=1)
                closest[some], order = apart.topk(count, dim=1, largest=False)
                places[some] = rows.gather(1, order)

    with parts_on_threads(available_threads()) as parallel:
        list(parallel(search, labels.unique()))
    return closest, places


def distances(images: Tensor, others: Tensor) -> Tensor:
    """The distance of each image to each of the others, moved: both uint8 [N, C, H, W] → float32 [N, M].

    What is compared is the middle of the others, without the edge that a shift would move outside.
    """
    images, middle = _smaller(images), _smaller(others)
    down, right, rows, columns = _window(*images.shape[2:])
    middle = _directions(middle[:, :, down : down + rows, right : right + columns]).T
    likeness = torch.zeros(len(images), middle.shape[1])
    for y in range(2 * down + 1):
        for x in range(2 * right + 1):
            moved = _directions(images[:, :, y : y + rows, x : x + columns])
            torch.maximum(likeness, moved @ middle, out=likeness)
    return _part(likeness)


def _window(height: int, width: int) -> tuple[int, int, int, int]:
    """By how many pixels an image is moved down and right, and the size of what is compared."""
    down, right = (min(MAX_SHIFT, side // 8) for side in (height, width))
    return down, right, height - 2 * down, width - 2 * right


def _part(likeness: Tensor) -> Tensor:
    """The part of the contrast that remains, from the correlation."""
    return (1 - likeness.clamp(0, 1).square()).sqrt()


def _smaller(images: Tensor) -> Tensor:
    height, width = (min(SIDE, side) for side in images.shape[2:])
    if images.shape[2:] == (height, width):
        return images.float()
    return F.adaptive_avg_pool2d(images.float(), (height, width))


def _directions(images: Tensor) -> Tensor:
    """Each image less its mean and of length 1, float [N, pixels + 1].

    One more value stands for a grey level of contrast: images of one colour are alike, and not like others.
    """
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return F.normalize(F.pad(flat, (0, 1), value=math.sqrt(flat.shape[1])), dim=1)
