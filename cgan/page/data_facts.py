"""Facts of the data for a page: where an image stands, and labels that look wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.images import SPLITS, Images
from cgan.page.tiles import tile
from cgan.quality.judge import Judge, predict
from cgan.quality.label_errors import doubtful_labels

MAX_SUSPECTS = 48
MAX_JUDGED_PIXELS = 60_000_000  # in which labels that look wrong are looked for


def rows_of(data: Images, split: str) -> NDArray[np.int64]:
    """The rows that are trained on (`train`) or held out (`val`), ascending."""
    assert data.splits is not None
    return np.flatnonzero(data.splits == SPLITS.index(split))


def place(data: Images, row: int) -> str:
    """Where an image stands: its picture's file, its line in the CSV, or its number, counted from 1."""
    if data.files:
        return data.files[row]
    return f"line {data.lines[row]}" if data.source_sha256 else f"image {row + 1}"


def suspects_facts(data: Images, judge: Judge) -> dict[str, Any]:
    """Rows whose label the judge doubts. It has seen the labels of the training part, and learnt some."""
    most = max(1, MAX_JUDGED_PIXELS // data.pixels[0].size)
    # A CSV can be sorted by class: the judge looks at rows from everywhere, held-out ones first.
    random = np.random.default_rng(0)
    heldout = rows_of(data, "val")
    order = [random.permutation(rows) for rows in (heldout, rows_of(data, "train"))]
    judged = np.sort(np.concatenate(order)[:most])
    logits = predict(judge, data.tensors.pixels[judged]).logits.double()
    groups = None if data.groups is None else data.groups[judged]
    suspects = doubtful_labels(logits.softmax(dim=1).numpy(), data.labels[judged], groups=groups)
    first = suspects.first(MAX_SUSPECTS)
    rows = [
        {
            "place": place(data, row),
            "label": data.labels[row],
            "src": tile(data.tensors.pixels[row]),
            "suggested": suggested,
            "confidence": float(confidence),
            "heldout": row in heldout,
        }
        for row, suggested, confidence in zip(
            judged[first.rows], first.suggested, first.confidence, strict=True
        )
    ]
    return {"count": len(suspects.rows), "looked_at": len(judged), "rows": rows}
