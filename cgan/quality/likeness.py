"""How alike images are, however moved or brightened: copies, and how many different drawings a class has.

The distance of two images is the part of the first one's contrast (its standard deviation) that remains when
the second is taken from it, moved by up to MAX_SHIFT pixels and with the brightness and contrast that fit
best: 0 for a copy, 1 where they have nothing in common. It is √(1-r²), with r the largest correlation.

How many different drawings a class has: were there n, equally frequent, one pair in n would show the same.
So n is counted by the pairs that are the same (Simpson, Nature 163, 1949; for generators, the birthday
paradox test of Arora & Zhang, arXiv:1706.08224). The same are two that are nearer than all but one in
ALIKE pairs of real images of the class are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.dataset import Dataset
from cgan.model.hardware import available_threads, parts_on_threads

MAX_SHIFT = 2  # pixels; less in images that are less than 16 pixels wide
SIDE = 32  # pixels: larger images are made smaller
ALIKE = 1000
IN_PAIRS = 200  # images of a class, at most, that are compared with one another
_BLOCK = 2_000_000  # pixels that are floats at once


@dataclass(frozen=True)
class Copies:
    """`closer`, bool [N], marks the drawings that are nearer to a training image of their class than 99 % of
    the held-out reals are: .01 of real images are, of a generator that copies far more.
    `heldout_median`: the distance of a held-out image to the nearest one."""

    closer: Tensor
    heldout_median: float


def copies(drawn: Tensor, asked: Tensor, heldout: Dataset, training: Dataset) -> Copies:
    """Compare drawings (uint8 [N, C, H, W]) of the classes `asked` with held-out reals."""
    near, usual = (
        nearest(images, labels, training.images, training.labels)[0][:, 0]
        for images, labels in ((drawn, asked), (heldout.images, heldout.labels))
    )
    return Copies(near < usual.quantile(0.01), usual.median().item())


def nearest(
    images: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Distances of each image to the nearest ones in `reference` of its class, and their rows.

    Images uint8 [N, C, H, W], labels int64 [N] → float32 and int64 [N, count], nearest first; infinite and -1
    where the class has fewer.
    """
    found = torch.full((len(images), count), math.inf)
    places = torch.full((len(images), count), -1)
    size = max(1, _BLOCK // images[0].numel())

    def search(label: Tensor) -> None:
        mine = (labels == label).nonzero()[:, 0]
        others = (reference_labels == label).nonzero()[:, 0]
        for some in mine.split(size):
            for block in others.split(size):
                apart = torch.cat([found[some], distances(images[some], reference[block])], dim=1)
                rows = torch.cat([places[some], block.expand(len(some), -1)], dim=1)
                found[some], order = apart.topk(count, dim=1, largest=False)
                places[some] = rows.gather(1, order)

    with parts_on_threads(available_threads()) as parallel:
        list(parallel(search, labels.unique()))
    return found, places


def different(drawn: Tensor, asked: Tensor, training: Dataset) -> list[tuple[float, float] | None]:
    """How many different drawings each class has, at most ALIKE, and what as many real images of it get.

    None for a class with less than two drawings or different real images. Few real images have few pairs: 20
    get 190.
    """

    def count(label: int) -> tuple[float, float] | None:
        mine = drawn[asked == label][:IN_PAIRS]
        real = training.images[training.labels == label][:IN_PAIRS].unique(dim=0)
        if min(len(mine), len(real)) < 2:
            return None
        pairs = _pairs(real)
        limit = pairs.kthvalue(max(1, len(pairs) // ALIKE)).values
        return _number(_pairs(mine), limit), _number(pairs, limit)

    with parts_on_threads(available_threads()) as parallel:
        return list(parallel(count, range(training.classes)))


def _pairs(images: Tensor) -> Tensor:
    """The distance of each pair, float32 [N(N-1)/2]."""
    apart = distances(images, images)
    rows, columns = torch.triu_indices(len(images), len(images), 1)
    return torch.minimum(apart, apart.T)[rows, columns]


def _number(pairs: Tensor, limit: Tensor) -> float:
    same = max(1, int((pairs <= limit).sum()))
    return float(min(ALIKE, round(len(pairs) / same)))


def distances(images: Tensor, others: Tensor) -> Tensor:
    """Of each image to each of the others, moved: both uint8 [N, C, H, W] → float32 [N, M].

    What is compared is the middle of the others, without the edge that a shift would move outside.
    """
    images, middle = _smaller(images), _smaller(others)
    height, width = images.shape[2:]
    down, right = (min(MAX_SHIFT, side // 8) for side in (height, width))
    rows, columns = height - 2 * down, width - 2 * right
    middle = _directions(middle[:, :, down : down + rows, right : right + columns]).T
    likeness = torch.zeros(len(images), middle.shape[1])
    for y in range(2 * down + 1):
        for x in range(2 * right + 1):
            moved = _directions(images[:, :, y : y + rows, x : x + columns])
            torch.maximum(likeness, moved @ middle, out=likeness)
    return (1 - likeness.clamp(max=1).square()).sqrt()


def _smaller(images: Tensor) -> Tensor:
    height, width = (min(SIDE, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float(), (height, width))


def _directions(images: Tensor) -> Tensor:
    """Each image less its mean and of length 1, float [N, pixels + 1].

    One more value stands for a grey level of contrast: images of one colour are alike, and not like others.
    """
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return F.normalize(F.pad(flat, (0, 1), value=math.sqrt(flat.shape[1])), dim=1)
