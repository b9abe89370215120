"""The curves of a training and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cgan.text import percent

if TYPE_CHECKING:  # the stage evaluate draws a matrix, and pandas takes 70 MB
    import pandas as pd

Picture = NDArray[np.uint8]
MAX_NUMBERED_CLASSES = 24  # whose cells have room for a number
MAX_AXIS_NAMES = 30
MIN_SHOWN_SHARE = 0.0005  # of a row: what is less is 0.0 per cent


def picture_of(figure: Figure) -> Picture:
    """A figure as pixels, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def sheet_with(*lines: str) -> Picture:
    """Lines of text where a picture would be, uint8 [H, W, 3]."""
    figure = Figure(figsize=(8, 0.5 + 0.3 * len(lines)))
    text = {"ha": "left", "va": "center", "size": 11}
    figure.text(0.03, 0.5, "\n".join(lines), **text)  # type: ignore[arg-type]
    return picture_of(figure)


def training_curves(table: pd.DataFrame) -> tuple[Picture, Picture]:
    """The curves of the losses and of the mean logits of a training's records; a note, if there are none."""
    if table.empty:
        nothing = sheet_with("No losses: this generator is not trained.")
        return nothing, nothing
    losses = {who: table[f"loss/{who}"] for who in ("discriminator", "generator")}
    logits = {f"{kind} images": table[f"logits/{kind}_mean"] for kind in ("real", "fake")}
    return (
        curves_image("Losses", table["step"], losses),
        curves_image("What the discriminator says (mean logits)", table["step"], logits),
    )


def curves_image(title: str, steps: ArrayLike, curves: Mapping[str, ArrayLike]) -> Picture:
    """Curves over the steps. A value that is not finite is left out."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(steps, values, label=name)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    return picture_of(figure)


def confusion_matrix_image(matrix: Any, class_names: Sequence[str]) -> Picture:
    """A picture of counts [classes, classes]: rows the asked class, columns the judged one.

    Shades and numbers are per cent of the row, so that classes of different size compare; a row
    without a count stays empty. Errors are shaded by their square root: a few per cent must be seen.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    classes, right = len(class_names), np.eye(len(counts), dtype=bool)
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    for mask, shades, colours in ((right, shares, "Blues"), (~right, shares**0.5, "Reds")):
        axes.imshow(np.where(mask, shades, np.nan), cmap=colours, vmin=0, vmax=1)
    labels = range(0, classes, math.ceil(classes / MAX_AXIS_NAMES))
    # Its font has Latin, Greek and Cyrillic letters, not Chinese ones.
    has_glyphs = all(max(map(ord, name), default=0) < 0x590 for name in class_names)
    names = [f"{class_names[label]:.12}" if has_glyphs else str(label) for label in labels]
    axes.set_xticks(
        labels, names, rotation="horizontal" if max(map(len, names)) < 3 else "vertical"
    )
    axes.set_yticks(labels, names)
    axes.set(xlabel="class that the judge sees", ylabel="class asked for")
    hits = counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{percent(hits)} of {int(counts.sum()):,} drawings; per cent of each row")
    place: dict[str, Any] = {"ha": "center", "va": "center", "size": min(10, 130 / classes)}
    for row, column in np.argwhere((shares >= MIN_SHOWN_SHARE) & (classes <= MAX_NUMBERED_CLASSES)):
        share = shares[row, column]
        dark = 0.55 if row == column else 0.3  # from this share on, by the shades above
        colour = "white" if share > dark else "black"
        words = "100" if share > 1 - MIN_SHOWN_SHARE else f"{share * 100:.1f}"
        axes.text(column, row, words, color=colour, **place)
    return picture_of(figure)
