"""Stage evaluate: the drawings against held-out reals, every number with its floor and passport.

It depends on the file that names the training's MLflow run: a new run gets its numbers also where the
generator is an old one. What is drawn of it, the stage record adds.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from pathlib import Path

import torch

from cgan.files import write_json
from cgan.model.hardware import compute_deterministically
from cgan.model.sampling import save_png
from cgan.params.reading import load_params
from cgan.pictures.confusion_matrix import confusion_matrix_image
from cgan.project import CONFUSION, EVALUATION, METRICS, RUN_REFERENCE
from cgan.quality.evaluation import Inputs, judge_generator
from cgan.quality.table import (
    Report,
    class_table,
    floors,
    headline,
    quality_table,
    tracked,
)
from cgan.run.lifecycle import reopen
from cgan.run.tracker import Tracker
from cgan.stages.runner import progress, run_stage
from cgan.store.pages import REAL_IMAGES, real_images_tag

log = logging.getLogger(__name__)


def main() -> None:
    compute_deterministically()
    inputs = Inputs.load()
    with reopen(RUN_REFERENCE) as tracker:  # what sends the records starts meanwhile
        report = judge_generator(inputs, load_params().evaluate, progress)
        write_json(EVALUATION, report)
        write_json(METRICS, {"quality": headline(report)})
        _record(tracker, report)
    confusion = torch.tensor(report["confusion"])
    save_png(CONFUSION, confusion_matrix_image(confusion, inputs.training.class_names))
    for name, value in headline(report).items():
        log.info("%-24s %s", name, value)


def _record(tracker: Tracker, report: Report) -> None:
    """Numbers and tables on the page of the run."""
    # At step 0: MLflow draws a single number of a later step as a line chart of one dot.
    tracker.log_metrics(tracked(report), 0)
    tracker.set_tags({REAL_IMAGES: real_images_tag(floors(report))})
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        for name, rows in {"quality": quality_table, "quality_by_class": class_table}.items():
            table = Path(folder) / f"{name}.csv"
            with table.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows(report))
            tracker.log_file(table)
    for path in (EVALUATION, METRICS):
        tracker.log_file(path, "reports")


if __name__ == "__main__":
    run_stage(main)
