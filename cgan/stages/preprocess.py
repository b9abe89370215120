"""Stage preprocess: CSV → uint8 tensors, training part and stratified hold-out, a contact sheet."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgan.data import csv_reader, csv_report
from cgan.data.dataset import save_dataset, split
from cgan.errors import DataError
from cgan.files import read_json, replacing
from cgan.params.reading import load_params
from cgan.project import CSV, HOLDOUT_DATA, TRAIN_DATA, VALIDATION
from cgan.stages.runner import run_stage

SHEET_COLUMNS, SHEET_CLASSES = 10, 50

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params().preprocess
    report = read_json(VALIDATION)
    # As it was validated, so that both stages read it alike.
    validated = csv_report.validated_params(report, str(VALIDATION))
    table = csv_reader.read_csv(CSV, validated)
    if table.sha256 != report.get("csv", {}).get("sha256"):
        raise DataError(
            f"{CSV}: changed since {VALIDATION} was written. Run `dvc repro`, which validates it again."
        )
    facts: dict[str, Any] = {"classes": table.classes, "csv_sha256": table.sha256}
    if validated.class_names:
        facts["class_names"] = validated.class_names
    train, holdout = split(table.images, table.labels, params.holdout_fraction, params.seed)
    sheet = _contact_sheet(table, train)
    parts = [
        (table.images[rows], table.labels[rows], table.lines[rows]) for rows in (train, holdout)
    ]
    del table  # to write a part takes its memory once more
    for path, part in zip((TRAIN_DATA, HOLDOUT_DATA), parts, strict=True):
        save_dataset(path, *part, facts | {"part": path.stem})
    with replacing("reports/real_samples.png") as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    log.info("%s images for training, %s held out", f"{len(train):,}", f"{len(holdout):,}")


def _contact_sheet(table: csv_reader.Table, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [H, W] or [H, W, 3]: of the images at `rows`, the first of each class, a row a class."""
    _, channels, height, width = table.images.shape
    classes = min(table.classes, SHEET_CLASSES)
    sheet = np.zeros((classes, height, SHEET_COLUMNS, width, channels), np.uint8)
    for label in range(classes):
        for column, index in enumerate(rows[table.labels[rows] == label][:SHEET_COLUMNS]):
            sheet[label, :, column] = table.images[index].transpose(1, 2, 0)
    flat = sheet.reshape(classes * height, SHEET_COLUMNS * width, channels)
    return flat[..., 0] if channels == 1 else flat


if __name__ == "__main__":
    run_stage(main)
