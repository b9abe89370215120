"""Rows of images with the names of their classes beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cgan.images import Images, IntArray
from cgan.text import drawable

COLUMNS, MAX_CLASSES = 10, 50
MIN_SIDE = 48  # pixels, to which an image is enlarged
GAP = 2  # pixels between images
BACKGROUND = 72  # grey level
MAX_NAME_WIDTH = 160  # pixels

Pixels = NDArray[np.uint8]


def contact_sheet(images: Images, seed: int) -> Image.Image:
    """Ten images of each class (the first 50), drawn by the seed; a row a class."""
    order = np.random.default_rng(seed).permutation(len(images))
    names = images.class_names[:MAX_CLASSES]
    return Image.fromarray(
        add_row_names(arrange_by_class(images.pixels, images.labels, order, len(names)), names)
    )


def arrange_by_class(images: Pixels, labels: IntArray, order: IntArray, classes: int) -> Pixels:
    """A row for each of the first `classes`, of its first ten images in `order`; uint8 [H, W] or
    [H, W, 3]."""
    _, channels, *sides = images.shape
    scale = -(-MIN_SIDE // max(sides))  # rounded up
    height, width = (side * scale + GAP for side in sides)
    cells = np.full((classes, COLUMNS, channels, height, width), BACKGROUND, np.uint8)
    for label in range(classes):
        rows = order[labels[order] == label][:COLUMNS]
        cells[label, : len(rows), :, GAP:, GAP:] = images[rows].repeat(scale, 2).repeat(scale, 3)
    sheet = cells.transpose(0, 3, 1, 4, 2).reshape(classes * height, COLUMNS * width, channels)
    sheet = np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND)
    return sheet[..., 0] if channels == 1 else sheet


def add_row_names(picture: Pixels, names: Sequence[str]) -> Pixels:
    """A picture uint8 [H, W] or [H, W, 3], which has a row for each name, with the names to the left of the
    rows."""
    height = picture.shape[0] / len(names)
    size = min(14.0, max(8.0, height - 4))
    names = drawable(names)
    font = ImageFont.load_default(size)
    if not "".join(names).isascii():
        import matplotlib

        font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    width = round(min(MAX_NAME_WIDTH, max(map(font.getlength, names)))) + 12
    column = Image.new("L", (width, picture.shape[0]), BACKGROUND)
    draw = ImageDraw.Draw(column)
    for row, name in enumerate(names):
        while font.getlength(name) > MAX_NAME_WIDTH:
            name = name.removesuffix("…")[:-1] + "…"
        draw.text((width - 6, (row + 0.5) * height), name, 255, font, anchor="rm")
    texts = column if picture.ndim == 2 else column.convert("RGB")
    return np.concatenate([np.asarray(texts), picture], axis=1)
