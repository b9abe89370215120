"""Drawings made into one picture: a text as one number, rows of variants as a grid; ink and paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from torch import Tensor

from cgan.errors import CganError
from cgan.model.networks import Generator
from cgan.model.sampling import Picture, draw, encode_png, image_grid, picture_of

Colour = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
PER_LINE = 20  # drawings, at most, of a text
MAX_PICTURE_BYTES = 200_000_000
MAX_SCALED_WIDTH = 900
MAX_SCALE = 64


@dataclass(frozen=True)
class Inks:
    """What white and black of a grey drawing become."""

    ink: Colour
    paper: Colour

    @classmethod
    def named(cls, ink: str | None, paper: str | None) -> Inks | None:
        """By names or #RRGGBB; the one that is not given is black or white, whichever stands out."""
        if ink is None and paper is None:
            return None
        known = {
            o: _colour(o, name) for o, name in (("ink", ink), ("paper", paper)) if name is not None
        }
        inks = cls(
            known.get("ink") or _apart_from(known["paper"]),
            known.get("paper") or _apart_from(known["ink"]),
        )
        if inks.ink == inks.paper:
            raise CganError(
                f"`ink` {ink} and `paper` {paper}: the same colour shows nothing. Change one."
            )
        return inks

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Grey [H, W] → [H, W, 3]."""
        share = np.arange(256)[:, None] / 255
        table = np.array(self.paper) * (1 - share) + np.array(self.ink) * share
        return table.round().astype(np.uint8)[picture]


def _colour(option: str, name: str) -> Colour:
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise CganError(
            f"`{option}` {name[:40]}: not a colour. Give a name, such as navy, or #RRGGBB."
        ) from None
    return red, green, blue


def _apart_from(colour: Colour) -> Colour:
    return BLACK if sum(colour) > 3 * 127 else WHITE


@dataclass(frozen=True)
class Style:
    """How a picture is made of drawings. `smooth` enlarges by Lanczos' filter, not pixel by pixel."""

    scale: int | None = None
    smooth: bool = False
    inks: Inks | None = None


def compose(
    network: Generator, labels: list[int], rows: int, seed: int, style: Style
) -> tuple[Tensor, Picture]:
    """`rows` variants of the labels in a row, or one variant in lines of at most PER_LINE.

    Returns the drawings, uint8 [N, C, H, W], and the picture, [H, W] or in colour [H, W, 3].

    Digits of a single variant touch, so that they read as one number; several are kept apart.
    Without a scale, pixels are enlarged up to 4 times while the width stays under 900.
    """
    a = network.architecture
    if style.inks and a.channels > 1:
        raise CganError(
            "`ink` and `paper` are for drawings in grey, and this model draws in colour. Leave them out."
        )
    if rows < 1 or not 1 <= (style.scale or 1) <= MAX_SCALE:
        raise CganError(
            f"rows {rows} and scale {style.scale}: expected at least one row, and a scale from 1 to "
            f"{MAX_SCALE}."
        )
    layout = Layout.of((a.height, a.width, a.channels), len(labels), rows, style.scale)
    size = layout.values * (3 if style.inks else 1)
    if size > MAX_PICTURE_BYTES:
        raise CganError(
            f"{rows} × {len(labels)} drawings at scale {layout.scale} make a picture of {size:,} bytes, at "
            f"most {MAX_PICTURE_BYTES:,} are drawn. Ask for less, or for a set with `--per-class`."
        )
    device = next(network.parameters()).device
    images = draw(network, torch.tensor(labels * rows), seed, device)
    picture = arranged(images, layout, style.smooth)
    return images, style.inks.apply(picture) if style.inks else picture


@dataclass(frozen=True)
class Layout:
    """Where drawings stand in one picture. `values` is how many bytes its pixels take, without inks."""

    lines: int
    columns: int
    scale: int
    padding: int
    values: int

    @classmethod
    def of(cls, shape: tuple[int, ...], labels: int, rows: int, scale: int | None) -> Layout:
        """Of `rows` variants of so many labels, each drawing of `shape`."""
        columns = labels if rows > 1 else balanced(labels, PER_LINE)
        lines = -(-labels * rows // columns)
        scale = scale or max(1, min(4, MAX_SCALED_WIDTH // (columns * shape[1])))
        values = lines * columns * int(np.prod(shape)) * scale**2
        return cls(lines, columns, scale, int(rows > 1), values)


def balanced(count: int, most: int) -> int:
    """How many stand in a line, when as few lines as possible are about equally long."""
    return -(-count // -(-count // most))


def arranged(images: Tensor, layout: Layout, smooth: bool = False) -> Picture:
    """One picture of drawings uint8 [N, C, H, W]; what they leave of its last line is black."""
    large = _smoothly(images, layout.scale) if smooth else images
    missing = layout.lines * layout.columns - len(large)
    filled = torch.cat([large, large.new_zeros(missing, *large.shape[1:])])
    grid = filled.view(layout.lines, layout.columns, *large.shape[1:])
    return image_grid(grid, layout.padding, scale=1 if smooth else layout.scale)


def png_of(image: Tensor) -> bytes:
    """One drawing, uint8 [C, H, W], as PNG."""
    return encode_png(picture_of(image.permute(1, 2, 0).contiguous()))


def _smoothly(images: Tensor, scale: int) -> Tensor:
    """Each image enlarged on its own, so that none shines into its neighbour."""
    height, width = images.shape[2] * scale, images.shape[3] * scale
    large = [
        np.asarray(
            Image.fromarray(picture_of(image.permute(1, 2, 0).contiguous())).resize(
                (width, height), Image.Resampling.LANCZOS
            )
        )
        for image in images
    ]
    return (
        torch.from_numpy(np.stack(large)).view(len(images), height, width, -1).permute(0, 3, 1, 2)
    )
