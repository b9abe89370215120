"""Answers of anybody's classifiers, with drawings and without, as CSV files."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cgan.downstream.effect import DRAWN, Effect, Outcome, effect
from cgan.errors import DataError

WITHOUT = "without"  # the method beside drawings
REQUIRED_COLUMNS = ("label", "prediction")


def effect_of_answers(pairs: Sequence[tuple[Path, Path]]) -> tuple[Effect, list[str]]:
    """The difference that drawings make, and the names of the classes.

    Each pair is of one seed: the answers of a classifier trained without drawings, and of one trained with
    them. A file has a row for each test image, all in one order, with the columns `label`, `prediction` and,
    where images belong together, `group`. Raises DataError for files that do not fit.
    """
    tables = [(_read(path), path) for pair in pairs for path in pair]
    first, first_path = tables[0]
    for table, path in tables[1:]:
        for column in ("label", "group"):
            expected, found = (each.get(column, []) for each in (first, table))
            if expected == found:
                continue
            if not expected:
                raise DataError(
                    f"{path}: found a column `{column}`, which {first_path} has not. Write it "
                    "into all files, or into none."
                )
            raise DataError(
                f"{path}: expected the column `{column}` of {first_path}, row by row ({len(expected):,} "
                f"rows); found {_difference(expected, found)}. Test both classifiers on the same images "
                "in the same order."
            )
    for table, path in tables:
        if not {*table["label"]} & {*table["prediction"]}:
            raise DataError(
                f"{path}: expected predictions written as the labels are, such as "
                f"{first['label'][0]!r}; found {table['prediction'][0]!r}, and none that is a label. Write "
                "both columns alike."
            )
    names = sorted({*first["label"]}, key=lambda name: (len(name), name))
    labels = torch.tensor([names.index(name) for name in first["label"]])
    groups = first.get("group", [str(row) for row in range(len(labels))])
    units = torch.from_numpy(np.unique(groups, return_inverse=True)[1])
    right = [
        torch.tensor([a == b for a, b in zip(table["label"], table["prediction"], strict=True)])
        for table, _ in tables
    ]
    outcomes = [
        Outcome(labels, units, {WITHOUT: without, DRAWN: with_drawings})
        for without, with_drawings in zip(right[0::2], right[1::2], strict=True)
    ]
    return effect(outcomes, [WITHOUT], folded=False), names


def _read(path: Path) -> dict[str, list[str]]:
    """The columns, as texts."""
    import pandas as pd

    try:
        # A cell too many in each row would become the index, and its neighbours the wrong columns.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
            )
    except OSError as error:
        raise DataError(
            f"{path}: expected a CSV with the columns label and prediction; {error.strerror}."
        ) from None
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: expected a CSV with the columns label and prediction; cannot read it ({reason})."
        ) from None
    frame.columns = [str(name).strip() for name in frame.columns]
    if missing := [name for name in REQUIRED_COLUMNS if name not in frame]:
        raise DataError(
            f"{path}: expected the columns label, prediction and, if you like, group; found "
            f"{', '.join(map(str, frame.columns))[:200]}. Add {missing[0]}."
        )
    columns = {
        name: [*frame[name].str.strip()] for name in (*REQUIRED_COLUMNS, "group") if name in frame
    }
    for name, values in columns.items():
        if "" in values:
            raise DataError(
                f"{path}: column `{name}`, row {values.index('') + 1}: empty. Give every image one."
            )
    if not columns["label"]:
        raise DataError(f"{path}: 0 rows; expected one for each test image.")
    return columns


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    if not found:
        return "no such column"
    if len(found) != len(expected):
        return f"{len(found):,} rows"
    pairs = zip(expected, found, strict=True)
    row = next(row for row, (wanted, value) in enumerate(pairs) if wanted != value)
    return f"{found[row]!r} in place of {expected[row]!r} in row {row + 1}"
