"""Rows of images with the names of their classes beside them."""

import contextlib
import functools
import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cgan.images import Images, IntArray

COLUMNS, CLASSES = 10, 50
SIDE = 48  # pixels, at least, to which an image is enlarged
GAP = 2
BACKGROUND = 72
MAX_NAME_WIDTH = 160

Pixels = NDArray[np.uint8]

log = logging.getLogger(__name__)


def contact_sheet(images: Images, seed: int) -> Image.Image:
    """Ten images of each class (the first 50), drawn by the seed; a row a class."""
    order = np.random.default_rng(seed).permutation(len(images))
    names = images.class_names[:CLASSES]
    return Image.fromarray(
        with_names(in_rows(images.pixels, images.labels, order, len(names)), names)
    )


def in_rows(images: Pixels, labels: IntArray, order: IntArray, shown: int) -> Pixels:
    """A row for each of the first `shown` classes, of its first ten images in `order`; uint8 [H, W] or
    [H, W, 3]."""
    _, channels, *sides = images.shape
    scale = -(-SIDE // max(sides))
    down, across = (side * scale + GAP for side in sides)
    cells = np.full((shown, COLUMNS, channels, down, across), BACKGROUND, np.uint8)
    for label in range(shown):
        large = images[order[labels[order] == label][:COLUMNS]].repeat(scale, 2).repeat(scale, 3)
        cells[label, : len(large), :, GAP:, GAP:] = large
    sheet = cells.transpose(0, 3, 1, 4, 2).reshape(shown * down, COLUMNS * across, channels)
    sheet = np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND)
    return sheet[..., 0] if channels == 1 else sheet


def with_names(picture: Pixels, names: Sequence[str]) -> Pixels:
    """uint8 [H, W] or [H, W, 3], a row a name, with the names to the left of the rows; with numbers where no
    font here has all letters of the names."""
    height = picture.shape[0] / len(names)
    size = min(14.0, max(8.0, height - 4))
    font = ImageFont.load_default(size)
    if not (letters := "".join(sorted({*"".join(names)}))).isascii():
        if file := font_with(letters):
            font = ImageFont.truetype(file, size)
        else:
            names = [str(row) for row in range(len(names))]
    width = round(min(MAX_NAME_WIDTH, max(map(font.getlength, names)))) + 12
    column = Image.new("L", (width, picture.shape[0]), BACKGROUND)
    draw = ImageDraw.Draw(column)
    for row, name in enumerate(names):
        while font.getlength(name) > MAX_NAME_WIDTH:
            name = name.removesuffix("…")[:-1] + "…"
        draw.text((width - 6, (row + 0.5) * height), name, 255, font, anchor="rm")
    texts = column if picture.ndim == 2 else column.convert("RGB")
    return np.concatenate([np.asarray(texts), picture], axis=1)


@functools.cache
def font_with(letters: str) -> str:
    """The file of a font that has them: matplotlib's, else one of this machine's; `` where none is."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    own = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    for file in [own, *sorted(font_manager.findSystemFonts())]:
        with contextlib.suppress(OSError, RuntimeError):  # no font that can be read
            if {*map(ord, letters)} <= FT2Font(file).get_charmap().keys():
                ImageFont.truetype(file, 14)  # one of pictures, as of emoji, has one size alone
                return file
    log.warning(
        "No font on this machine has all letters of the classes' names, so pictures show numbers. Install "
        "one that has, such as Noto Sans CJK."
    )
    return ""
