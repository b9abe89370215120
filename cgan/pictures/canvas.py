"""A small drawing surface with smooth edges and text, on Pillow alone."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHARPNESS = 3
INK = "#1f2933"
FAINT = "#7b8794"


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own font is the same everywhere; it has Latin letters only, no × and no arrows.
    return ImageFont.load_default(size=size)


class Canvas:
    """Everything is drawn SHARPNESS times larger than asked for, and reduced at the end."""

    def __init__(self, width: float, height: float, background: str = "white") -> None:
        self.width, self.height = round(width), round(height)
        size = (self.width * SHARPNESS, self.height * SHARPNESS)
        self._image = Image.new("RGB", size, background)
        self._draw = ImageDraw.Draw(self._image)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str | tuple[int, ...],
        outline: str | None = None,
        radius: float = 0,
    ) -> None:
        corners = [x * SHARPNESS, y * SHARPNESS, (x + width) * SHARPNESS, (y + height) * SHARPNESS]
        self._draw.rounded_rectangle(
            corners, radius * SHARPNESS, fill=fill, outline=outline, width=SHARPNESS
        )

    def line(self, *points: tuple[float, float], colour: str = FAINT, width: float = 1.5) -> None:
        scaled = [(x * SHARPNESS, y * SHARPNESS) for x, y in points]
        self._draw.line(scaled, fill=colour, width=round(width * SHARPNESS), joint="curve")

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """Downwards."""
        neck = bottom - 6
        self.line((x, top), (x, neck))
        head = [(x - 4, neck), (x + 4, neck), (x, bottom)]
        self._draw.polygon([(a * SHARPNESS, b * SHARPNESS) for a, b in head], fill=FAINT)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 13,
        colour: str = INK,
        anchor: str = "lm",
        bold: bool = False,
    ) -> None:
        """`anchor` as Pillow's: l, m, r across; a, m, s down."""
        self._draw.text(
            (x * SHARPNESS, y * SHARPNESS),
            text,
            font=_font(size * SHARPNESS),
            fill=colour,
            anchor=anchor,
            stroke_width=0.5 * SHARPNESS / 2 if bold else 0,
            stroke_fill=colour,
        )

    def picture(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]."""
        small = self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)
        return np.asarray(small)


def text_width(text: str, size: float = 13) -> float:
    return _font(size * SHARPNESS).getlength(text) / SHARPNESS
