"""What a page shows of the data: counts, and labels that look wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgan.data.dataset import Dataset, load_dataset
from cgan.files import read_json
from cgan.page.tiles import tile
from cgan.project import CSV_SOURCE, HOLDOUT_DATA, TRAIN_DATA
from cgan.quality.judge import Judge, look
from cgan.quality.label_errors import Suspects, doubtful_labels

SIDE = 64  # pixels, at most, of an image in the page
SHOWN = 48  # suspects
VALUES = 60_000_000  # pixels that the judge looks at


@dataclass(frozen=True, kw_only=True)
class Rows(Dataset):
    """All images, in the order of the CSV or of the files, out of the parts that `preprocess` made.

    `training`, `heldout` int64: indices of rows, ascending; `files`: the picture of each row, of a CSV that
    was made from pictures, else empty; `metadata`: of the training part; `notes`: on groups and near copies.
    """

    lines: Tensor
    training: NDArray[np.int64]
    heldout: NDArray[np.int64]
    files: list[str]
    notes: list[str]

    @classmethod
    def read(cls) -> Rows:
        """Raises ModelError where `dvc repro` has not made the parts."""
        parts = [load_dataset(path) for path in (TRAIN_DATA, HOLDOUT_DATA)]
        lines = torch.cat([part.lines for part in parts if part.lines is not None])
        rows = lines.argsort().argsort().split([len(part) for part in parts])

        def ordered(name: str) -> Tensor:
            pieces = [getattr(part, name) for part in parts]
            whole: Tensor = pieces[0].new_empty((len(lines), *pieces[0].shape[1:]))
            for at, piece in zip(rows, pieces, strict=True):
                whole[at] = piece
            return whole

        source = read_json(CSV_SOURCE) if CSV_SOURCE.is_file() else {}
        metadata = parts[0].metadata
        same = source.get("sha256") == metadata["csv_sha256"]  # else it was replaced since then
        files = source.get("files", []) if same else []
        return cls(
            images=ordered("images"),
            labels=ordered("labels"),
            metadata=metadata,
            lines=ordered("lines"),
            groups=None if parts[0].groups is None else ordered("groups"),
            training=rows[0].numpy(),
            heldout=rows[1].numpy(),
            # Those of a test set are in neither part.
            files=[files[line - 1] for line in sorted(lines.tolist())] if files else [],
            notes=parts[1].metadata.get("notes", []),
        )

    def place(self, index: int) -> dict[str, Any]:
        """A row, counted from 1 as `cgan validate` does, its line in the CSV and its picture's file."""
        place = {"row": int(index) + 1, "line": int(self.lines[index])}
        return place | ({"file": self.files[index]} if self.files else {})


def data_facts(rows: Rows, judge: Judge, report: dict[str, Any]) -> dict[str, Any]:
    """`report`: of the stage validate."""
    return {
        "rows": len(rows),
        "training": len(rows.training),
        "heldout": len(rows.heldout),
        "tested": report.get("splits", {}).get("test", 0),
        "shape": report["shape"],
        "warnings": report["warnings"],
        "notes": rows.notes,
        "suspects": _suspects(rows, judge),
    }


def _suspects(rows: Rows, judge: Judge) -> dict[str, Any]:
    """Rows whose label the judge doubts. It has seen the labels of the training part, and learnt some."""
    room = max(1, VALUES // rows.images[0].numel())
    # A CSV can be sorted by class: what is looked at comes from everywhere, held-out rows first.
    random = np.random.default_rng(0)
    order = [random.permutation(part) for part in (rows.heldout, rows.training)]
    looked = np.sort(np.concatenate(order)[:room])
    seen = look(judge, rows.images[looked]).logits.double().softmax(dim=1).numpy()
    groups = None if rows.groups is None else rows.groups.numpy()[looked]
    suspects = doubtful_labels(seen, rows.labels.numpy()[looked], groups=groups)
    shown = suspects_facts(suspects.first(SHOWN), looked, rows)
    return {"count": len(suspects), "looked_at": len(looked), "rows": shown}


def suspects_facts(
    suspects: Suspects, looked: NDArray[np.int64], rows: Rows
) -> list[dict[str, Any]]:
    """For each suspect its place, label and picture. `looked`: the rows that `suspects` counts."""
    at = looked[suspects.rows]
    heldout = np.isin(at, rows.heldout)
    columns = zip(at, suspects.suggested, suspects.confidence, heldout, strict=True)
    return [
        rows.place(i)
        | {"label": int(rows.labels[i]), "src": tile(rows.images[i], SIDE)}
        | {"suggested": int(suggested), "confidence": float(confidence), "heldout": bool(part)}
        for i, suggested, confidence, part in columns
    ]
