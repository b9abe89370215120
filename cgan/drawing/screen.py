"""Drawings in a terminal with colours: two pixels a character."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.drawing.picture import MAX_PER_LINE, even_line_length

MIN_WIDTH = 8  # pixels in which a drawing can still be read
OTHER_LINES = 3  # of the terminal: for the prompt, the file's name and a note


def show(images: Tensor, rows: int, console: Console) -> None:
    """Print drawings uint8 [N, C, H, W]: one variant in lines that fit, or `rows` variants. They are made
    smaller, down to MIN_WIDTH; what then does not fit is left out. Without colours nothing is printed."""
    if console.no_color or not console.color_system or console.options.ascii_only:
        return
    count, _, height, width = images.shape
    room = max(1, console.width // min(MIN_WIDTH, width))
    columns = count // rows if rows > 1 else even_line_length(count, min(MAX_PER_LINE, room))
    shown_columns = min(columns, room)
    characters = min(width, console.width // shown_columns)  # a character is a pixel wide
    lines = max(1, round(height * characters / width / 2))
    shown_rows = max(1, (console.height - OTHER_LINES) // lines)
    text = [
        line
        for drawings in images.split(columns)[:shown_rows]
        for line in _lines_of(_downscale(drawings[:shown_columns], 2 * lines, characters))
    ]
    if shown_columns < columns or shown_rows * columns < count:
        text.append(Text("(the file has more)"))
    console.print(Text("\n").join(text), soft_wrap=True)


def _downscale(images: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Drawings [N, C, H, W] side by side: [height, N·width, C]."""
    small = F.adaptive_avg_pool2d(images.float(), (height, width)).round().to(torch.uint8)
    row: NDArray[np.uint8] = small.permute(2, 0, 3, 1).flatten(1, 2).numpy()
    return row


def _lines_of(pixels: NDArray[np.uint8]) -> Iterator[Text]:
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).tolist()
    for above, below in zip(rgb[0::2], rgb[1::2], strict=True):
        pairs = zip(above, below, strict=True)
        colours = ((Color.from_rgb(*fore), Color.from_rgb(*back)) for fore, back in pairs)
        yield Text.assemble(*(("▀", Style(color=fore, bgcolor=back)) for fore, back in colours))
