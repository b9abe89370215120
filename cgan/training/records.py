"""The files that a training leaves beside its models: rows of numbers by name, as CSV, and previews."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.base.files import write_text

if TYPE_CHECKING:  # torch comes with it, which the stage record does without
    from cgan.training.state import Record


def write_records(path: Path, columns: Sequence[str], records: Sequence[Record]) -> None:
    """Write records as CSV, the step a whole number."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(name.removeprefix("progress/") for name in columns)
    for record in records:
        step, *values = record.values()
        rows.writerow([int(step), *(f"{value:.6g}" for value in values)])
    write_text(path, text.getvalue())


def read_records(path: Path) -> list[Record]:
    """The rows of a file of `write_records`: names without `progress/`, values to six digits."""
    names, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    return [dict(zip(names, map(float, row), strict=True)) for row in rows]


def preview_paths(folder: Path) -> dict[int, Path]:
    """The previews of a training by their steps, in order."""
    paths = folder.glob("step-*.png")
    return dict(sorted((int(path.stem.removeprefix("step-")), path) for path in paths))
