"""Images in rows and columns, as one picture; perhaps with the names of their classes beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cgan.base.text import drawable
from cgan.data.arrays import IntArray

MAX_COLUMNS, MAX_SHEET_CLASSES = 10, 50
MAX_WIDTH = 660  # pixels of a row of images, where more than two are in it
MIN_SHOWN_SIDE = 48  # pixels, to which an image is enlarged
GAP = 2  # pixels between images
BACKGROUND = 72  # grey level
MAX_NAME_WIDTH = 160  # pixels

Pixels = NDArray[np.uint8]


def contact_sheet(
    images: Pixels, labels: IntArray, class_names: Sequence[str], seed: int
) -> Image.Image:
    """A row of images [N, C, H, W] for each class (the first 50), picked at random by `seed`."""
    order = np.random.default_rng(seed).permutation(len(images))
    names = class_names[:MAX_SHEET_CLASSES]
    sheet = arrange_by_class(images, labels, order, len(names))
    return Image.fromarray(add_row_names(sheet, names))


def layout(height: int, width: int) -> tuple[int, int]:
    """Times that images are enlarged, and images in a row: two to ten, as many as fit."""
    scale = -(-MIN_SHOWN_SIDE // max(height, width))  # rounded up
    return scale, max(2, min(MAX_COLUMNS, MAX_WIDTH // (width * scale + GAP)))


def arrange_by_class(images: Pixels, labels: IntArray, order: IntArray, classes: int) -> Pixels:
    """A row for each of the first `classes`, of its first images in `order`: uint8 [H, W] or [H, W, 3]."""
    scale, columns = layout(*images.shape[2:])
    cells = np.full((classes, columns, *images.shape[1:]), BACKGROUND, np.uint8)
    for label in range(classes):
        rows = order[labels[order] == label][:columns]
        cells[label, : len(rows)] = images[rows]
    return image_grid(cells, GAP, BACKGROUND, scale)


def image_grid(images: Pixels, padding: int = 1, background: int = 64, scale: int = 1) -> Pixels:
    """uint8 [rows, columns, C, H, W] → one picture, [H, W] or [H, W, 3], with `padding` pixels around and
    between images. `scale` repeats each pixel; the padding is not enlarged."""
    images = images.repeat(scale, axis=3).repeat(scale, axis=4)
    before = [(0, 0), (0, 0), (0, 0), (padding, 0), (padding, 0)]
    cells = np.pad(images, before, constant_values=background)
    rows, columns, channels, height, width = cells.shape
    grid = cells.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    grid = np.pad(grid, [(0, padding), (0, padding), (0, 0)], constant_values=background)
    return grid[..., 0] if channels == 1 else grid


def add_row_names(picture: Pixels, names: Sequence[str]) -> Pixels:
    """The picture, uint8 [H, W] or [H, W, 3], with the names of its rows to the left of them."""
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
