"""Stage preprocess: the images → training part, stratified hold-out and test set; a contact sheet."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np

from cgan.data import csv_report
from cgan.data.contact_sheet import contact_sheet
from cgan.data.dataset import (
    SPLITS,
    LabelledImages,
    Rows,
    near_copies,
    save_dataset,
    split,
    units,
)
from cgan.data.raw import load_raw
from cgan.errors import DataError, listed
from cgan.files import read_json, replacing
from cgan.params.reading import load_params
from cgan.params.sections import PreprocessParams
from cgan.project import CSV, HOLDOUT_DATA, PICTURES, TEST_DATA, TRAIN_DATA, VALIDATION
from cgan.stages.runner import run_stage

NEAR_COPIES = 0.05  # of the held-out images, from which they are worth a word

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params().preprocess
    report = read_json(VALIDATION)
    # As it was validated, so that both stages read it alike.
    validated = csv_report.validated_params(report, str(VALIDATION))
    found = load_raw(validated)
    if found.sha256 != report.get("csv", {}).get("sha256"):
        raise DataError(
            f"{PICTURES if found.files else CSV}: changed since {VALIDATION} was written. Run `dvc repro`, "
            "which validates it again."
        )
    names = validated.class_names or [str(label) for label in range(found.classes)]
    facts: dict[str, Any] = {"classes": found.classes, "csv_sha256": found.sha256}
    if validated.class_names:
        facts["class_names"] = validated.class_names
    groups = groups_of(found, params.group)
    train, holdout, test = divide(found, groups, names, params)
    if groups is None:
        warn_of_near_copies(found, train, holdout)
    with replacing("reports/real_samples.png") as temporary:
        contact_sheet(found.images, found.labels, train, names, params.seed).save(
            temporary, format="PNG"
        )
    parts = [replace(found, groups=groups).at(rows) for rows in (train, holdout, test)]
    del found  # to write a part takes its memory once more
    for path, part in zip((TRAIN_DATA, HOLDOUT_DATA, TEST_DATA), parts, strict=True):
        own = facts | {"part": path.stem}
        save_dataset(path, part.images, part.labels, part.lines, own, part.groups)
    beside = f", {len(test):,} to test on" * bool(len(test))
    log.info(
        "%s images for training, %s held out%s", f"{len(train):,}", f"{len(holdout):,}", beside
    )


def groups_of(found: LabelledImages, pattern: str | None) -> Rows | None:
    """int64 [N]: equal where the pattern finds the same in the files, or as the source says; None where
    neither says anything."""
    if pattern is None:
        return found.groups
    if not found.files:
        raise DataError(
            f"`preprocess.group` is {pattern!r}, but {CSV} has no files in whose names to look for it. Set "
            "it to null; a column `group` after the label says the same."
        )
    matches = [re.search(pattern, file) for file in found.files]
    names = [
        (match[1] or match[0] if match.re.groups else match[0]) if match else None
        for match in matches
    ]
    without = [file for file, name in zip(found.files, names, strict=True) if name is None]
    if len(without) == len(names):
        raise DataError(
            f"`preprocess.group`: {pattern!r} is found in no file, such as {listed(without, 2)}. Correct it."
        )
    own = [
        f"/{file}" if name is None else name for file, name in zip(found.files, names, strict=True)
    ]
    groups: Rows = np.unique(own, return_inverse=True)[1]
    log.info("%s groups of images by `preprocess.group`.", f"{len(np.unique(groups)):,}")
    if without:
        log.warning(
            f"Without a group: in {len(without):,} files it is not found: {listed(without)}. Each is a group."
        )
    return groups


def divide(
    found: LabelledImages, groups: Rows | None, names: list[str], params: PreprocessParams
) -> tuple[Rows, Rows, Rows]:
    """Rows to train on, held out, and to test on: as the source says, or by `params`."""
    if found.splits is None:
        parts = split(
            found.images, found.labels, params.holdout_fraction, params.seed, groups, names
        )
        return *parts, np.empty(0, np.int64)
    train, holdout, test = (np.flatnonzero(found.splits == n) for n in range(len(SPLITS)))
    if not len(holdout):
        theirs = None if groups is None else groups[train]
        parts = split(
            found.images[train],
            found.labels[train],
            params.holdout_fraction,
            params.seed,
            theirs,
            names,
        )
        train, holdout = train[parts[0]], train[parts[1]]
    kept = []
    together = units(found.images, groups)
    for name, rows in (("val", holdout), ("test", test)):
        known = np.isin(together[rows], together[train])
        if known.any():
            log.warning(
                f"Left out: {known.sum():,} images of {name} of which train has a copy, or one of their "
                f"group: {listed([found.place(row) for row in rows[known]])}."
            )
        kept.append(rows[~known])
    holdout, test = kept
    missing = np.setdiff1d(found.labels[train], found.labels[holdout])
    if len(missing):
        raise DataError(
            f"val: no image of class {listed([names[label] for label in missing])} that train has not too. "
            "Add some, or remove val: then a part of train is held out."
        )
    return train, holdout, test


def warn_of_near_copies(found: LabelledImages, train: Rows, holdout: Rows) -> None:
    near = near_copies(found.images, found.labels, train, holdout)
    if len(near) > max(2, NEAR_COPIES * len(holdout)):
        pairs = listed([f"{found.place(a)} like {found.place(b)}" for a, b in near], 3)
        log.warning(
            f"Near copies: {len(near):,} of {len(holdout):,} held-out images look much like one of the "
            f"training part: {pairs}. If one thing was photographed several times, every number about "
            "held-out images is too good: set `preprocess.group` to what such files have in common, or add a "
            "column `group`."
        )


if __name__ == "__main__":
    run_stage(main)
