"""How drawings look: ink and paper, and in a terminal two pixels a character, or shades."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.errors import CganError

Colour = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
PER_LINE = 20  # drawings, at most, of a text
LEAST_WIDTH = 8  # pixels in which a drawing can still be read
LINES_KEPT = 3  # for the prompt, the file's name and a note
SHADES, ASCII_SHADES = " ░▒▓█", " .:+@"
RESET = "\x1b[0m"
# What 256 colours have: a cube with these six levels a channel, and 24 greys between its black and white.
CUBE = np.array([0, 95, 135, 175, 215, 255])
GREYS = np.array([0, *range(8, 239, 10), 255])
GREY_CODES = (16, *range(232, 256), 231)


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


# --- in a terminal ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terminal:
    """`colours`: 2**24, 256, or 0 for none."""

    columns: int = 80
    lines: int = 24
    colours: int = 2**24
    shades: str = SHADES

    @classmethod
    def here(cls) -> Terminal:
        """That of stdout. No colours with NO_COLOR (no-color.org), TERM=dumb, or no TERM: shades say as
        much in any terminal, and are no escapes."""
        columns, lines = shutil.get_terminal_size()
        term = os.environ.get("TERM", "dumb")
        if os.environ.get("NO_COLOR") or term == "dumb":
            colours = 0
        elif os.environ.get("COLORTERM") in ("truecolor", "24bit") or term.endswith("-direct"):
            colours = 2**24
        else:
            colours = 256
        try:
            f"▀{SHADES}".encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return cls(columns, lines, 0, ASCII_SHADES)
        return cls(columns, lines, colours)


def on_screen(images: Tensor, rows: int, inks: Inks | None, terminal: Terminal) -> str:
    """Drawings uint8 [N, C, H, W] as text: one variant in lines that fit, or `rows` variants.

    They are made smaller to fit, down to LEAST_WIDTH; what is then still too wide or high is left out, and
    the last line says so.
    """
    count, _, height, width = images.shape
    room = max(1, terminal.columns // min(LEAST_WIDTH, width))
    columns = count // rows if rows > 1 else balanced(count, min(PER_LINE, room))
    shown = min(columns, room)
    wide = min(width, max(1, terminal.columns // shown))
    most = max(1, terminal.lines - LINES_KEPT)
    high = max(1, min(round(height * wide / width / 2), most))  # in characters
    if high == most:
        wide = min(wide, max(1, round(2 * high * width / height)))
    lines = list(images.split(columns))
    text = [
        row
        for line in lines[: most // high]
        for row in _rows_of(_smaller(line[:shown], 2 * high, wide), inks, terminal)
    ]
    left_out = [
        f"{few} of {all_} {what}"
        for few, all_, what in (
            (most // high, len(lines), "rows" if rows > 1 else "lines"),
            (shown, columns, "columns"),
        )
        if few < all_
    ]
    return "\n".join([*text, *([f"({', '.join(left_out)}; the file has all)"] if left_out else [])])


def balanced(count: int, most: int) -> int:
    """How many stand in a line, when as few lines as possible are about equally long."""
    return -(-count // -(-count // most))


def _smaller(images: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Drawings [N, C, H, W] side by side, at most as large as they are: [height, N·width, C]."""
    small = F.adaptive_avg_pool2d(images.float(), (height, width)).round().to(torch.uint8)
    row: NDArray[np.uint8] = small.permute(2, 0, 3, 1).flatten(1, 2).numpy()
    return row


def _rows_of(pixels: NDArray[np.uint8], inks: Inks | None, terminal: Terminal) -> Iterator[str]:
    """Each row of characters shows two of pixels [H, W, C]."""
    if not terminal.colours:
        # Of a drawing in grey the shade is its ink, whatever colours are asked for.
        light = pixels.mean(axis=2).reshape(len(pixels) // 2, 2, -1).mean(axis=1)
        for row in (light / 256 * len(terminal.shades)).astype(int):
            yield "".join(terminal.shades[level] for level in row).rstrip()
        return
    coloured = (
        inks.apply(pixels[..., 0]) if inks else np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    )
    codes = _codes(coloured, terminal.colours)
    for above, below in zip(codes[::2], codes[1::2], strict=True):
        cells = [f"\x1b[38;{fore};48;{back}m" for fore, back in zip(above, below, strict=True)]
        changes = [cells[0], *("" if a == b else b for a, b in pairwise(cells))]
        yield "▀".join(changes) + "▀" + RESET


def _codes(pixels: NDArray[np.uint8], colours: int) -> list[list[str]]:
    """What stands behind 38; or 48; for each pixel of [H, W, 3]."""
    if colours > 256:
        return [[f"2;{r};{g};{b}" for r, g, b in row] for row in pixels.tolist()]
    cube = np.abs(pixels[..., None].astype(int) - CUBE).argmin(axis=-1) @ (36, 6, 1) + 16
    grey = np.array(GREY_CODES)[np.abs(pixels[..., :1].astype(int) - GREYS).argmin(axis=-1)]
    is_grey = (pixels == pixels[..., :1]).all(axis=-1)
    return [[f"5;{code}" for code in row] for row in np.where(is_grey, grey, cube).tolist()]
