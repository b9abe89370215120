"""Where a data set's images stand in the CSV: rows as `cgan validate` counts them, and lines of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def line_numbers(path: Path | str) -> NDArray[np.int64]:
    """The line, counted from 1, of each row of data of a valid CSV; int64 [N].

    The header is line 1. Blank lines hold no row, and a row never spans lines.
    """
    with Path(path).open("rb") as file:
        lines = (number for number, line in enumerate(file, start=1) if number > 1 and line.strip())
        return np.fromiter(lines, np.int64)
