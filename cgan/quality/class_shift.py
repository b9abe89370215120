"""How far the images of each class lie from other images of it, in numbers that have names.

Each image becomes a row: brightness, contrast, where its light is and how far it spreads, its edges, and the
image itself made small. Of each class the means and variances of these are compared with those of other
images (Cohen's d, Statistical Power Analysis, 1988), less what chance explains: the optimistic end of an
interval that is at 95 % for all columns of all classes together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.quality.intervals import critical_t

SIDE = 16  # of the small image
GREY, PIXELS = "{:.0f} grey levels", "{:.1f} pixels"


@dataclass(frozen=True)
class Column:
    """A number that images are compared by: what less and more of it is called, and `by` how much.

    `least`: what is too little to speak of, however alike the images of a class are; of a move as a part of
    the image's `side`.
    """

    less: str
    more: str
    by: str
    least: float
    side: Literal["", "height", "width", "longer"] = ""


# In the order of a row; the small image follows.
COLUMNS = {
    "brightness": Column("darker", "brighter", GREY, 4.0),
    "contrast": Column("of less contrast", "of more contrast", GREY, 4.0),
    "y": Column("further up", "further down", PIXELS, 0.02, "height"),
    "x": Column("further left", "further right", PIXELS, 0.02, "width"),
    "spread": Column("narrower", "wider", PIXELS, 0.02, "longer"),
    "edges": Column("softer", "harder", f"{GREY} at edges", 4.0),
    "hardest edge": Column("softer", "harder", f"{GREY} at the hardest edge", 32.0),
    "lightest": Column("darker", "lighter", f"{GREY} where lightest", 32.0),
    "darkest": Column("darker", "lighter", f"{GREY} where darkest", 32.0),
}
LEAST_PIXEL, LEAST_FEATURE = 16.0, 0.2
AT_ONCE = 2000  # images
# Images of a class: a mean of less says nothing where most pixels are black in most images.
ENOUGH = 10


@dataclass(frozen=True)
class Moments:
    """The moments of the images of each class: float64 `counts` [classes], `means` and `variances` [classes,
    columns]."""

    counts: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor], labels: Tensor, classes: int) -> Moments:
        """The moments of rows float [N, columns], in parts, and the labels int64 [N] of all."""
        columns = rows[0].shape[1]
        sums, squares = (torch.zeros(classes, columns, dtype=torch.float64) for _ in range(2))
        labels_of_parts = labels.split([len(part) for part in rows])
        for part, part_labels in zip(rows, labels_of_parts, strict=True):
            sums.index_add_(0, part_labels, part.double())
            squares.index_add_(0, part_labels, part.double().square())
        counts = labels.bincount(minlength=classes).double()
        many = counts.clamp(min=1)[:, None]
        return cls(counts, sums / many, (squares / many - (sums / many).square()).clamp(min=0))

    @classmethod
    def of_images(cls, images: Tensor, labels: Tensor, classes: int) -> Moments:
        return cls.of([_looks(part) for part in images.split(AT_ONCE)], labels, classes)


class Shift(NamedTuple):
    """A class, by how many standard deviations the mean of a column is off, and what that is in words."""

    label: int
    deviations: float
    words: str


def largest_shifts(
    moments: Moments, others: Moments, shape: Sequence[int] | None = None
) -> list[Shift]:
    """For each class the column that is furthest off, in images [C, H, W]; without `shape`, in features."""
    values, columns = _apart(moments, others, least_deviations(shape, moments.means.shape[1])).max(
        dim=1
    )
    changes = (moments.means - others.means).gather(1, columns[:, None])[:, 0]
    worst = zip(values.tolist(), columns.tolist(), changes.tolist(), strict=True)
    return [
        Shift(label, value, _in_words(column, change, shape))
        for label, (value, column, change) in enumerate(worst)
    ]


def _apart(moments: Moments, others: Moments, least: Tensor) -> Tensor:
    """By how many standard deviations the means differ at least, at the end of the interval nearer to 0:
    [classes, columns], 0 where it may be chance. `least` [columns]: no standard deviation counts as less."""
    n, m = moments.counts[:, None], others.counts[:, None]
    freedom = (n + m - 2).clamp(min=1)
    pooled = (n * moments.variances + m * others.variances) / freedom
    apart = (moments.means - others.means).abs() / pooled.sqrt().maximum(least)
    t = [critical_t(each, many=apart.numel()) for each in freedom[:, 0].tolist()]
    reach = torch.tensor(t, dtype=torch.float64)[:, None] * (1 / n + 1 / m).sqrt()
    apart = (apart - reach).clamp(min=0)
    return apart.where(torch.minimum(n, m) >= ENOUGH, 0.0)


def least_deviations(shape: Sequence[int] | None, columns: int) -> Tensor:
    """What is too little to speak of in each column: float64 [columns]."""
    if shape is None:
        return torch.full((columns,), LEAST_FEATURE, dtype=torch.float64)
    least = torch.full((columns,), LEAST_PIXEL, dtype=torch.float64)
    height, width = shape[1:]
    sides = {"": 1, "height": height, "width": width, "longer": max(height, width)}
    for number, named in enumerate(COLUMNS.values()):
        least[number] = named.least * sides[named.side]
    return least


def _in_words(column: int, change: float, shape: Sequence[int] | None) -> str:
    if shape is None:
        return "something else in the judge's eyes"
    pixel = column - len(COLUMNS)
    if pixel < 0:
        named, where = [*COLUMNS.values()][column], ""
    else:
        height, width = shape[1:]
        rows, columns = min(SIDE, height), min(SIDE, width)
        row, place = divmod(pixel % (rows * columns), columns)
        y, x = int((row + 0.5) * (height / rows)) + 1, int((place + 0.5) * (width / columns)) + 1
        named, where = COLUMNS["brightness"], f" around row {y}, column {x}"
    return f"{named.more if change > 0 else named.less} by {named.by.format(abs(change))}{where}"


def looks_of(images: Tensor) -> Tensor:
    """The row of each image: uint8 [N, C, H, W] → float32 [N, columns]; those of COLUMNS come first."""
    return torch.cat([_looks(part) for part in images.split(AT_ONCE)])


def _looks(images: Tensor) -> Tensor:
    pixels = images.float()
    grey = pixels.mean(dim=1)
    height, width = grey.shape[1:]
    light = grey.sum(dim=(1, 2)) + 1e-6
    moments = []
    for axis, side in ((2, height), (1, width)):
        density = grey.sum(dim=axis) / light[:, None]
        ticks = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        mean = density @ ticks
        moments.append((mean, (density @ ticks.square() - mean.square()).clamp(min=0)))
    (y, tall), (x, wide) = moments
    down, right = (grey.diff(dim=axis).abs() for axis in (1, 2))
    edges = down.mean(dim=(1, 2)) + right.mean(dim=(1, 2))
    hardest = torch.maximum(down.amax(dim=(1, 2)), right.amax(dim=(1, 2)))
    values = {
        "brightness": grey.mean(dim=(1, 2)),
        "contrast": grey.std(dim=(1, 2)),
        "y": y,
        "x": x,
        "spread": (tall + wide).sqrt(),
        "edges": edges,
        "hardest edge": hardest,
        "lightest": grey.amax(dim=(1, 2)),
        "darkest": grey.amin(dim=(1, 2)),
    }
    small = F.adaptive_avg_pool2d(pixels, (min(SIDE, height), min(SIDE, width)))
    named = torch.stack([values[name] for name in COLUMNS], dim=1)
    return torch.cat([named, small.flatten(1)], dim=1)
