"""All images of a project, as one set, out of the parts that the stage preprocess made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.files import read_json
from cgan.images import SPLITS, Images, load_images
from cgan.project import DATA_SOURCE, HOLDOUT_DATA, TRAIN_DATA


def whole_data(test: Images | None = None) -> Images:
    """All images, in the order of the CSV or of the files, out of the parts that `preprocess` made;
    and after them those of `test`, the data's own test set.

    `splits` are train and val, as they were divided; `notes` are on groups and near copies. Raises ModelError
    where `dvc repro` has not made the parts.
    """
    parts = [load_images(path) for path in (TRAIN_DATA, HOLDOUT_DATA)]
    lines = np.concatenate([part.lines for part in parts])
    order = lines.argsort()
    whole_rows = np.empty_like(order)  # where each image of the parts goes
    whole_rows[order] = np.arange(len(order))
    rows_of_parts = np.split(whole_rows, [len(parts[0])])

    def ordered(name: str) -> NDArray[Any]:
        """An array of both parts in order, without holding all twice as joining and then sorting would."""
        pieces = [getattr(part, name) for part in parts]
        whole: NDArray[Any] = np.empty((len(lines), *pieces[0].shape[1:]), pieces[0].dtype)
        for rows, piece in zip(rows_of_parts, pieces, strict=True):
            whole[rows] = piece
        return whole

    source = read_json(DATA_SOURCE) if DATA_SOURCE.is_file() else {}
    is_current = source.get("sha256") == parts[0].source_sha256  # else it was replaced since then
    files = source.get("files", []) if is_current else []
    whole = replace(
        parts[0],
        pixels=ordered("pixels"),
        labels=ordered("labels"),
        groups=None if parts[0].groups is None else ordered("groups"),
        splits=(np.repeat([0, 1], [len(part) for part in parts]).astype(np.uint8))[order],
        lines=lines[order],
        # The list has the files of a test set, too.
        files=[files[line - 1] for line in lines[order]] if files else [],
        notes=parts[1].notes,
    )
    return _with_test_set(whole, test) if test else whole


def _with_test_set(whole: Images, test: Images) -> Images:
    """Both, without the names of files: the test set's have other numbers."""
    names = ["pixels", "labels", "lines"]
    if whole.groups is not None:
        names.append("groups")
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in (whole, test)]) for name in names
    }
    splits = np.concatenate([whole.splits, np.full(len(test), SPLITS.index("test"), np.uint8)])
    return replace(whole, **arrays, splits=splits, files=[])
