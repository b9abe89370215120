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

from cgan.drawing.picture import PER_LINE, balanced

LEAST_WIDTH = 8  # pixels in which a drawing can still be read
LINES_KEPT = 3  # for the prompt, the file's name and a note


def show(images: Tensor, rows: int, console: Console) -> None:
    """Print drawings uint8 [N, C, H, W]: one variant in lines that fit, or `rows` variants.

    They are made smaller to fit, down to LEAST_WIDTH; what is then still too wide or high is left out, and
    the last line says so. Without colours, or blocks to colour, nothing is printed.
    """
    if console.no_color or not console.color_system or console.options.ascii_only:
        return
    count, _, height, width = images.shape
    room = max(1, console.width // min(LEAST_WIDTH, width))
    columns = count // rows if rows > 1 else balanced(count, min(PER_LINE, room))
    shown = min(columns, room)
    wide = min(width, max(1, console.width // shown))
    most = max(1, console.height - LINES_KEPT)
    high = max(1, min(round(height * wide / width / 2), most))  # in characters
    if high == most:
        wide = min(wide, max(1, round(2 * high * width / height)))
    lines = list(images.split(columns))
    text = [
        row
        for line in lines[: most // high]
        for row in _rows_of(_smaller(line[:shown], 2 * high, wide))
    ]
    if shown < columns or most // high < len(lines):
        text.append(
            Text(
                f"(shown: {min(most // high, len(lines))} of {len(lines)} rows, {shown} of {columns} "
                "columns; the file has all)"
            )
        )
    console.print(Text("\n").join(text), soft_wrap=True)


def _smaller(images: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Drawings [N, C, H, W] side by side, at most as large as they are: [height, N·width, C]."""
    small = F.adaptive_avg_pool2d(images.float(), (height, width)).round().to(torch.uint8)
    row: NDArray[np.uint8] = small.permute(2, 0, 3, 1).flatten(1, 2).numpy()
    return row


def _rows_of(pixels: NDArray[np.uint8]) -> Iterator[Text]:
    """Each row of characters shows two of pixels [H, W, C]."""
    coloured = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).tolist()
    for above, below in zip(coloured[::2], coloured[1::2], strict=True):
        pairs = zip(above, below, strict=True)
        colours = ((Color.from_rgb(*fore), Color.from_rgb(*back)) for fore, back in pairs)
        yield Text.assemble(*(("▀", Style(color=fore, bgcolor=back)) for fore, back in colours))
