"""The confusion matrix as a picture, on Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.pictures.canvas import FAINT, INK, Canvas, text_width

EMPTY = (247, 247, 247)
RIGHT = (38, 107, 174)
WRONG = (197, 48, 48)


def confusion_matrix_image(matrix: Any, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of counts [classes, classes]: rows the asked class, columns the judged one.

    Shades and numbers are per cent of the row, so that classes of different size compare; a row
    without a count stays empty. Errors are shaded by their square root: a few per cent must be seen.
    Numbers are left out where the cells get too small, beyond 24 classes. Names that the font or the
    cells have no room for give way to the numbers of the classes.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    parts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    classes = len(class_names)
    cell = min(56.0, max(2.0, 600 / classes))
    # Pillow's font has Latin letters only.
    if not all(name.isascii() and text_width(name, 14) + 4 <= cell for name in class_names):
        class_names = [str(label) for label in range(classes)]
    widest = max(text_width(name, 14) for name in class_names)
    apart = next((n for n in (1, 5, 10, 50) if n * cell >= widest + 4), 100)  # names must not touch
    left, top, side = 34 + widest, 112.0, cell * classes
    canvas = Canvas(max(left + side + 28, 460), top + side + 28)
    hits = counts.trace() / max(counts.sum(), 1)
    canvas.text(24, 28, "Is the class drawn that was asked for?", 18, bold=True)
    subtitle = f"{hits:.2%} of {int(counts.sum()):,} drawings are; per cent of each row"
    canvas.text(24, 52, subtitle, 13, FAINT)
    canvas.text(24, 74, "rows: the class asked for; columns: the judged one", 13, FAINT)
    for label in range(0, classes, apart):
        middle = (label + 0.5) * cell
        canvas.text(left + middle, top - 12, class_names[label], 14, anchor="mm")
        canvas.text(left - 10, top + middle, class_names[label], 14, anchor="rm")
    canvas.box(left, top, side, side, EMPTY)
    gap = 1 if cell >= 4 else 0  # between cells
    for row, column in np.argwhere(parts > 0):
        part = float(parts[row, column])
        depth = part if row == column else part**0.5
        full = RIGHT if row == column else WRONG
        shade = tuple(int(a + (b - a) * depth) for a, b in zip(EMPTY, full, strict=True))
        x, y = left + column * cell, top + row * cell
        canvas.box(x, y, cell - gap, cell - gap, shade)
        if part >= 0.0005 and cell >= 24:
            # 100.0 would be the one number too wide for its cell.
            words = "100" if part > 0.9995 else f"{part * 100:.1f}"
            colour = "white" if depth > 0.55 else INK
            canvas.text(x + cell / 2, y + cell / 2, words, 14 * cell / 56, colour, anchor="mm")
    return canvas.picture()
