"""Rows of images with the names of their classes beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS, CLASSES = 10, 50
SIDE = 48  # pixels, at least, to which an image is enlarged
GAP = 2
BACKGROUND = 72
MAX_NAME_WIDTH = 160

Pixels = NDArray[np.uint8]


def contact_sheet(
    images: Pixels,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    names: Sequence[str],
    seed: int,
) -> Image.Image:
    """Of the images at `rows`, ten of each class (the first 50), drawn by the seed; a row a class."""
    order = rows[np.random.default_rng(seed).permutation(len(rows))]
    shown = min(len(names), CLASSES)
    return Image.fromarray(with_names(in_rows(images, labels, order, shown), names[:shown]))


def in_rows(
    images: Pixels, labels: NDArray[np.int64], order: NDArray[np.int64], shown: int
) -> Pixels:
    """A row for each of the first `shown` classes, of its first ten images in `order`; uint8 [H, W] or
    [H, W, 3]."""
    _, channels, height, width = images.shape
    scale = -(-SIDE // max(height, width))
    down, across = height * scale + GAP, width * scale + GAP
    sheet = np.full((shown * down + GAP, COLUMNS * across + GAP, channels), BACKGROUND, np.uint8)
    for label in range(shown):
        for column, index in enumerate(order[labels[order] == label][:COLUMNS]):
            large = images[index].transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)
            top, left = label * down + GAP, column * across + GAP
            sheet[top : top + height * scale, left : left + width * scale] = large
    return sheet[..., 0] if channels == 1 else sheet


def with_names(picture: Pixels, names: Sequence[str]) -> Pixels:
    """uint8 [H, W] or [H, W, 3], a row a name, with the names to the left of the rows."""
    height = picture.shape[0] / len(names)
    size = min(14.0, max(8.0, height - 4))
    font = ImageFont.load_default(size)
    if not "".join(names).isascii():  # of which Pillow's font has no other letters
        import matplotlib

        font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    most = max(font.getlength(name) for name in names)
    width = round(min(MAX_NAME_WIDTH, most)) + 12
    column = Image.new("L", (width, picture.shape[0]), BACKGROUND)
    draw = ImageDraw.Draw(column)
    for row, name in enumerate(names):
        shown = name
        while font.getlength(shown) > MAX_NAME_WIDTH:
            shown = shown.removesuffix("…")[:-1] + "…"
        draw.text((width - 6, (row + 0.5) * height), shown, 255, font, anchor="rm")
    texts = np.asarray(column)
    if picture.ndim == 3:
        texts = np.repeat(texts[..., None], 3, axis=2)
    return np.concatenate([texts, picture], axis=1)
