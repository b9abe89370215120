"""Facts of the data for a page: counts, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.images import SPLITS, Images
from cgan.page.tiles import tile
from cgan.quality.judge import Judge, predict
from cgan.quality.label_errors import Suspects, doubtful_labels

MAX_IMAGE_SIDE = 64  # pixels, of an image in the page
MAX_SUSPECTS = 48
MAX_JUDGED_PIXELS = 60_000_000  # in which labels that look wrong are looked for


def rows_of(data: Images, split: str) -> NDArray[np.int64]:
    """The rows that are trained on (`train`) or held out (`val`), ascending."""
    assert data.splits is not None
    return np.flatnonzero(data.splits == SPLITS.index(split))


def place_facts(data: Images, row: int) -> dict[str, Any]:
    """Where an image stands: its row, counted from 1 as `cgan validate` does; of a project, its line in the
    CSV or its picture's file, too."""
    facts: dict[str, Any] = {"row": int(row) + 1}
    if data.source_sha256:
        facts["line"] = int(data.lines[row])
    if data.files:
        facts["file"] = data.files[row]
    return facts


def data_facts(
    data: Images,
    judge: Judge | None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    tested: int = 0,
) -> dict[str, Any]:
    """Counts and shape of the data, and its doubtful labels. `warnings`, `notes`: of the stage validate;
    `tested`: images of the test set. Without a judge no label is doubted."""
    return {
        "rows": len(data),
        "training": len(rows_of(data, "train")),
        "heldout": len(rows_of(data, "val")),
        "tested": tested,
        "shape": dict(zip(("channels", "height", "width"), data.shape, strict=True)),
        "warnings": [*warnings],
        "notes": [*notes, *data.notes],
        "suspects": _suspects(data, judge) if judge else None,
    }


def _suspects(data: Images, judge: Judge) -> dict[str, Any]:
    """Rows whose label the judge doubts. It has seen the labels of the training part, and learnt some."""
    most = max(1, MAX_JUDGED_PIXELS // data.pixels[0].size)
    # A CSV can be sorted by class: the judge looks at rows from everywhere, held-out ones first.
    random = np.random.default_rng(0)
    order = [random.permutation(rows_of(data, split)) for split in ("val", "train")]
    judged = np.sort(np.concatenate(order)[:most])
    probabilities = (
        predict(judge, data.tensors.pixels[judged]).logits.double().softmax(dim=1).numpy()
    )
    groups = None if data.groups is None else data.groups[judged]
    suspects = doubtful_labels(probabilities, data.labels[judged], groups=groups)
    shown = suspects_facts(suspects.first(MAX_SUSPECTS), judged, data)
    return {"count": len(suspects), "looked_at": len(judged), "rows": shown}


def suspects_facts(
    suspects: Suspects, judged: NDArray[np.int64], data: Images
) -> list[dict[str, Any]]:
    """For each suspect its place, label and picture. `judged`: the rows of `data` that were looked at, which
    `suspects` counts."""
    rows = judged[suspects.rows]
    is_heldout = np.isin(rows, rows_of(data, "val"))
    columns = zip(rows, suspects.suggested, suspects.confidence, is_heldout, strict=True)
    return [
        {
            **place_facts(data, row),
            "label": int(data.labels[row]),
            "src": tile(data.tensors.pixels[row], MAX_IMAGE_SIDE),
            "suggested": int(suggested),
            "confidence": float(confidence),
            "heldout": bool(heldout),
        }
        for row, suggested, confidence, heldout in columns
    ]
