"""The records of a training as a table, in memory and as losses.csv or probes.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cgan.errors import DataError
from cgan.files import write_text

if TYPE_CHECKING:
    from cgan.training.state import Record


def records_table(columns: Sequence[str], records: Sequence[Record]) -> pd.DataFrame:
    """Records as a table, the step a whole number."""
    names = [name.removeprefix("progress/") for name in columns]
    rows = np.reshape([[*record.values()] for record in records], (-1, len(names)))
    return pd.DataFrame(rows, columns=names).astype({"step": int})


def write_records(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV."""
    text = table.to_csv(index=False, float_format="%.6g", na_rep="nan", lineterminator="\n")
    write_text(path, text)


def read_records(path: Path) -> pd.DataFrame:
    """The table that `write_records` wrote. Raises DataError for a damaged file."""
    try:
        names, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        values = np.array(rows, float).reshape(len(rows), len(names))
        return pd.DataFrame(values, columns=names).astype({"step": int})
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}). Restore it: `dvc checkout --force`.") from None
