"""Drawings made into one picture: a text as one number, rows of variants as a grid."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.base.errors import CganError
from cgan.data.contact_sheet import image_grid
from cgan.models.generative import GenerativeModel
from cgan.models.sampling import ImageArray

MAX_PER_LINE = 20  # drawings of a text
MAX_PICTURE_BYTES = 200_000_000  # of pixels
MAX_DEFAULT_SCALE, MAX_DEFAULT_WIDTH = 4, 900  # to which pixels are enlarged without a scale


def compose(
    model: GenerativeModel,
    labels: list[int],
    rows: int,
    seed: int,
    scale: int | None = None,
    max_bytes: int = MAX_PICTURE_BYTES,
) -> tuple[Tensor, ImageArray]:
    """Draw `rows` variants of the labels, each in a row, or one in lines of at most MAX_PER_LINE, in which
    digits read as one number: the drawings, uint8 [N, C, H, W], and the picture."""
    channels, height, width = model.shape
    columns = len(labels) if rows > 1 else even_line_length(len(labels), MAX_PER_LINE)
    lines = math.ceil(len(labels) * rows / columns)
    scale = scale or max(1, min(MAX_DEFAULT_SCALE, MAX_DEFAULT_WIDTH // (columns * width)))
    size = lines * columns * height * width * scale**2 * channels
    if size > max_bytes:
        raise CganError(
            f"{rows} × {len(labels)} drawings at scale {scale} make a picture of {size:,} bytes, expected "
            f"at most {max_bytes:,}. Ask for fewer drawings or a smaller scale."
        )
    images = model.draw(torch.tensor(labels * rows), seed)
    empty = lines * columns - len(images)
    filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, empty))
    grid = filled.view(lines, columns, *images.shape[1:])
    return images, image_grid(grid.numpy(), int(rows > 1), scale=scale)


def even_line_length(count: int, most: int) -> int:
    """How many stand in a line, when as few lines as possible are about equally long."""
    lines = math.ceil(count / most)
    return math.ceil(count / lines)
