"""What a training recorded at each step, as pictures with curves, on Pillow alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.pictures.canvas import FAINT, INK, Canvas

WIDTH, HEIGHT = 600, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 84, 52
RULE = "#e4e7eb"
COLOURS = ("#266bae", "#d9822b")

Picture = NDArray[np.uint8]
Curve = Sequence[float]


def training_curves(table: Path) -> tuple[Picture, Picture]:
    """Losses, and what the discriminator says, of losses.csv."""
    try:
        names, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
        columns = dict(zip(names, np.array(rows, float).T.tolist(), strict=True))
        losses = {who: columns[f"loss/{who}"] for who in ("discriminator", "generator")}
        logits = {f"{kind} images": columns[f"logits/{kind}_mean"] for kind in ("real", "fake")}
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{table}: damaged ({error}). Restore it: `dvc checkout --force`."
        ) from None
    return (
        curves_image("Losses", columns["step"], losses),
        curves_image("What the discriminator says (mean logits)", columns["step"], logits),
    )


def curves_image(title: str, steps: Curve, curves: Mapping[str, Curve]) -> Picture:
    """uint8 [H, W, 3]: at most two curves over the steps. A value that is not finite is left out."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text(24, 28, title, 18, bold=True)
    heights = _ticks(
        [value for curve in curves.values() for value in curve if math.isfinite(value)]
    )
    low, high = heights[0], heights[-1]
    first, last = min(steps, default=0.0), max(steps, default=1.0)

    def x(step: float) -> float:
        return LEFT + (step - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for value in heights:
        shade = RULE if value else FAINT
        canvas.line((LEFT, y(value)), (WIDTH - RIGHT, y(value)), colour=shade, width=1)
        canvas.text(LEFT - 8, y(value), f"{value:.4g}", 12, FAINT, anchor="rm")
    for step in _ticks(steps):
        if first <= step <= last:
            canvas.text(x(step), HEIGHT - BOTTOM + 16, f"{step:,.0f}", 12, FAINT, anchor="mm")
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "step", 13, FAINT, anchor="mm")
    for n, ((name, curve), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        place = LEFT + 160 * n
        canvas.line((place, 56), (place + 18, 56), colour=colour, width=3)
        canvas.text(place + 24, 56, name, 13, INK)
        known = [(x(s), y(v)) for s, v in zip(steps, curve, strict=True) if math.isfinite(v)]
        if known:
            canvas.line(*known, colour=colour, width=2)
    return canvas.picture()


def _ticks(values: Curve) -> list[float]:
    """3 to 8 round numbers at equal distances, from below the least value to above the greatest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    power = 10.0 ** math.floor(math.log10(high - low))
    unit = next(part * power for part in (0.2, 0.5, 1, 2) if high - low <= 5 * part * power)
    return [number * unit for number in range(math.floor(low / unit), math.ceil(high / unit) + 1)]
