"""Shifts of the images of each class from other images of it, in numbers that have names.

Each image becomes a row: NAMED_COLUMNS, and the image itself made small. Of each class their means are
compared with those of other images, in standard deviations (Cohen's d, Statistical Power Analysis, 1988),
less what chance explains: the optimistic end of an interval at 95 % for all columns and classes (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.quality.intervals import critical_t

SMALL_SIDE = 16  # pixels, at most, of the image made small
# Numbers that images are compared by, in the order of a row; the small image follows. Differences are counted
# in standard deviations of at least this size, in grey levels or as a fraction of the side: what is smaller
# is too little to speak of, however alike the images of a class are.
NAMED_COLUMNS: dict[str, tuple[float, Literal["", "height", "width", "longer"]]] = {
    "brightness": (4.0, ""),
    "contrast": (4.0, ""),
    "light further down, in pixels,": (0.02, "height"),
    "light further right, in pixels,": (0.02, "width"),
    "spread of the light, in pixels,": (0.02, "longer"),
    "edges": (4.0, ""),
    "hardest edge": (32.0, ""),
    "lightest point": (32.0, ""),
    "darkest point": (32.0, ""),
    "specks": (0.2, ""),
}
MIN_PIXEL_DEVIATION = 16.0  # grey levels, of a pixel of the small image
DESCRIBED_AT_ONCE = 2000  # images
# Of a class: a mean of fewer says nothing where most pixels are black in most images.
MIN_IMAGES_FOR_MEAN = 10


@dataclass(frozen=True)
class Moments:
    """The moments of the images of each class: float64 `counts` [classes], `means` and `variances` [classes,
    columns]."""

    counts: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def of_images(cls, images: Tensor, labels: Tensor, classes: int) -> Moments:
        """The moments of images uint8 [N, C, H, W] by their labels, int64 [N]."""
        rows = describe(images)
        means, variances = list[Tensor](), list[Tensor]()
        for label in range(classes):
            of_class = rows[labels == label].double()
            count = max(1, len(of_class))
            mean = of_class.sum(dim=0) / count
            means.append(mean)
            variances.append((of_class - mean).square().sum(dim=0) / count)
        counts = labels.bincount(minlength=classes).double()
        return cls(counts, torch.stack(means), torch.stack(variances))


class Shift(NamedTuple):
    """A class, by how many standard deviations the mean of one of its columns is off, and that in words."""

    label: int
    deviations: float
    words: str


def largest_shifts(moments: Moments, reference: Moments, shape: Sequence[int]) -> list[Shift]:
    """The column of each class that is furthest off, in images of `shape` [C, H, W]."""
    min_std = min_deviations(shape, moments.means.shape[1])
    values, columns = certain_differences(moments, reference, min_std).max(dim=1)
    changes = (moments.means - reference.means).gather(1, columns[:, None])[:, 0]
    names = [*NAMED_COLUMNS, *["brightness of a part"] * min_std.numel()]
    worst = zip(values.tolist(), columns.tolist(), changes.tolist(), strict=True)
    return [
        Shift(label, value, f"{names[column]} by {change:+.1f}")
        for label, (value, column, change) in enumerate(worst)
    ]


def certain_differences(moments: Moments, reference: Moments, min_std: Tensor) -> Tensor:
    """Standard deviations by which the means differ at least, at the end of the interval nearer to 0:
    [classes, columns], 0 where it may be chance. `min_std` [columns]: no standard deviation counts as less.

    The variance of Cohen's d is 1/n + 1/m + d²/(2(n + m)): the second part is that of the standard
    deviation. By the transformation that makes it 1, the interval is not symmetric, and a large difference of
    few images stays one (Hedges & Olkin, Statistical Methods for Meta-Analysis, 1985, chapter 5).
    """
    n, m = moments.counts[:, None], reference.counts[:, None]
    freedom = (n + m - 2).clamp(min=1)
    pooled = (n * moments.variances + m * reference.variances) / freedom
    cohens_d = (moments.means - reference.means).abs() / pooled.sqrt().maximum(min_std)
    t = [critical_t(each, comparisons=cohens_d.numel()) for each in freedom[:, 0].tolist()]
    rate = 2 * (n + m)
    scale = (rate * (1 / n + 1 / m)).sqrt()
    half_width = torch.tensor(t, dtype=torch.float64)[:, None] / rate.sqrt()
    certain = scale * ((cohens_d / scale).asinh() - half_width).clamp(min=0).sinh()
    return certain.where(torch.minimum(n, m) >= MIN_IMAGES_FOR_MEAN, 0.0)


def min_deviations(shape: Sequence[int], columns: int) -> Tensor:
    """The smallest standard deviation that counts, of each column: float64 [columns]."""
    height, width = shape[1:]
    sides = {"": 1, "height": height, "width": width, "longer": max(height, width)}
    named = [deviation * sides[side] for deviation, side in NAMED_COLUMNS.values()]
    of_pixels = [MIN_PIXEL_DEVIATION] * (columns - len(named))
    return torch.tensor([*named, *of_pixels], dtype=torch.float64)


def describe(images: Tensor) -> Tensor:
    """The row of each image: uint8 [N, C, H, W] → float32 [N, columns]; those of NAMED_COLUMNS come first."""
    return torch.cat([_describe_part(part) for part in images.split(DESCRIBED_AT_ONCE)])


def _describe_part(images: Tensor) -> Tensor:
    pixels = images.float()
    grey = pixels.mean(dim=1)
    height, width = grey.shape[1:]
    light = grey.sum(dim=(1, 2)) + 1e-6

    def mean_and_variance(light_by_place: Tensor) -> tuple[Tensor, Tensor]:
        """Where along one side the light is, in pixels from the middle, and how far it spreads."""
        density, side = light_by_place / light[:, None], light_by_place.shape[1]
        places = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        mean = density @ places
        return mean, (density @ places.square() - mean.square()).clamp(min=0)

    y, variance_y = mean_and_variance(grey.sum(dim=2))
    x, variance_x = mean_and_variance(grey.sum(dim=1))
    steps_down, steps_right = (grey.diff(dim=axis).abs() for axis in (1, 2))
    edges = steps_down.mean(dim=(1, 2)) + steps_right.mean(dim=(1, 2))
    hardest = torch.maximum(steps_down.amax(dim=(1, 2)), steps_right.amax(dim=(1, 2)))
    brightness, contrast = grey.mean(dim=(1, 2)), grey.std(dim=(1, 2))
    spread = (variance_y + variance_x).sqrt()
    lightest, darkest = grey.amax(dim=(1, 2)), grey.amin(dim=(1, 2))
    specks = (_above_neighbours(pixels) + _above_neighbours(-pixels)).mean(dim=(1, 2, 3))
    named = (brightness, contrast, y, x, spread, edges, hardest, lightest, darkest, specks)
    small = F.adaptive_avg_pool2d(pixels, (min(SMALL_SIDE, height), min(SMALL_SIDE, width)))
    return torch.cat([torch.stack(named, dim=1), small.flatten(1)], dim=1)


def _above_neighbours(pixels: Tensor) -> Tensor:
    """By how much each value lies above all eight around it, 0 where it does not: [N, C, H, W]."""
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    rows = F.max_pool2d(padded, (1, 3), stride=1)
    beside = torch.maximum(padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:])
    highest = torch.maximum(rows[:, :, :-2], rows[:, :, 2:]).maximum(beside)
    return (pixels - highest).clamp(min=0)
