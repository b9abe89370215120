"""What a page shows of the data: counts, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.files import read_json
from cgan.images import SPLITS, Images, load_images
from cgan.page.tiles import tile
from cgan.project import DATA_SOURCE, HOLDOUT_DATA, TRAIN_DATA
from cgan.quality.judge import Judge, predict
from cgan.quality.label_errors import Suspects, doubtful_labels

SIDE = 64  # pixels, at most, of an image in the page
SHOWN = 48  # suspects
VALUES = 60_000_000  # pixels that the judge looks at


def whole_data(test: Images | None = None) -> Images:
    """All images, in the order of the CSV or of the files, out of the parts that `preprocess` made;
    and after them those of `test`, the data's own test set.

    `splits` are train and val, as they were divided; `notes` are on groups and near copies. Raises ModelError
    where `dvc repro` has not made the parts.
    """
    parts = [load_images(path) for path in (TRAIN_DATA, HOLDOUT_DATA)]
    lines = np.concatenate([part.lines for part in parts])
    order = lines.argsort()
    rows = np.empty_like(order)  # where each image of the parts goes
    rows[order] = np.arange(len(order))
    rows_of_parts = np.split(rows, [len(parts[0])])

    def ordered(name: str) -> NDArray[Any]:
        """Without holding all twice, as joining and then sorting would."""
        pieces = [getattr(part, name) for part in parts]
        whole: NDArray[Any] = np.empty((len(lines), *pieces[0].shape[1:]), pieces[0].dtype)
        for at, piece in zip(rows_of_parts, pieces, strict=True):
            whole[at] = piece
        return whole

    source = read_json(DATA_SOURCE) if DATA_SOURCE.is_file() else {}
    same = source.get("sha256") == parts[0].source_sha256  # else it was replaced since then
    files = source.get("files", []) if same else []
    whole = replace(
        parts[0],
        pixels=ordered("pixels"),
        labels=ordered("labels"),
        groups=None if parts[0].groups is None else ordered("groups"),
        splits=(np.repeat([0, 1], [len(part) for part in parts]).astype(np.uint8))[order],
        lines=lines[order],
        # Those of a test set are in neither part.
        files=[files[line - 1] for line in lines[order]] if files else [],
        notes=parts[1].notes,
    )
    return _joined(whole, test) if test else whole


def _joined(whole: Images, test: Images) -> Images:
    """Without files: the test set's have other numbers."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in (whole, test)])
        for name in ("pixels", "labels", "lines", *(("groups",) * (whole.groups is not None)))
    }
    splits = np.concatenate([whole.splits, np.full(len(test), SPLITS.index("test"), np.uint8)])
    return replace(whole, **arrays, splits=splits, files=[])


def rows_of(data: Images, split: str) -> NDArray[np.int64]:
    """The rows of `whole_data` that are trained on (`train`) or held out (`val`), ascending."""
    assert data.splits is not None
    return np.flatnonzero(data.splits == SPLITS.index(split))


def place(data: Images, row: int) -> dict[str, Any]:
    """A row, counted from 1 as `cgan validate` does; of a project, its line in the CSV or its picture's file,
    too."""
    where: dict[str, Any] = {"row": int(row) + 1}
    if data.source_sha256:
        where["line"] = int(data.lines[row])
    return where | ({"file": data.files[row]} if data.files else {})


def data_facts(
    data: Images,
    judge: Judge | None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    tested: int = 0,
) -> dict[str, Any]:
    """`warnings`, `notes`: of the stage validate; `tested`: images of the test set. Without a judge no label
    is doubted."""
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
    room = max(1, VALUES // data.pixels[0].size)
    # A CSV can be sorted by class: what is looked at comes from everywhere, held-out rows first.
    random = np.random.default_rng(0)
    order = [random.permutation(part) for part in map(partial(rows_of, data), ("val", "train"))]
    looked = np.sort(np.concatenate(order)[:room])
    probabilities = (
        predict(judge, data.tensors.pixels[looked]).logits.double().softmax(dim=1).numpy()
    )
    groups = None if data.groups is None else data.groups[looked]
    suspects = doubtful_labels(probabilities, data.labels[looked], groups=groups)
    shown = suspects_facts(suspects.first(SHOWN), looked, data)
    return {"count": len(suspects), "looked_at": len(looked), "rows": shown}


def suspects_facts(
    suspects: Suspects, looked: NDArray[np.int64], data: Images
) -> list[dict[str, Any]]:
    """For each suspect its place, label and picture. `looked`: the rows that `suspects` counts."""
    at = looked[suspects.rows]
    heldout = np.isin(at, rows_of(data, "val"))
    columns = zip(at, suspects.suggested, suspects.confidence, heldout, strict=True)
    return [
        place(data, i)
        | {"label": int(data.labels[i]), "src": tile(data.tensors.pixels[i], SIDE)}
        | {"suggested": int(suggested), "confidence": float(confidence), "heldout": bool(part)}
        for i, suggested, confidence, part in columns
    ]
