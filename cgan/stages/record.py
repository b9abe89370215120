"""Stage record: what the stages made of a training, on the page of its MLflow run.

It depends on the file that names the run. So a new run gets numbers and pictures also where DVC restored
them from its cache, and neither evaluate nor render ran.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
import tempfile
from pathlib import Path

from cgan.errors import ModelError
from cgan.files import write_json
from cgan.model.file_facts import read_facts
from cgan.project import (
    CLASS_INTERPOLATION,
    CONFUSION,
    CURVES,
    DIAGRAMS,
    EVALUATION,
    FILM,
    GENERATOR,
    GRID,
    LATENT_INTERPOLATION,
    METRICS,
    NINE,
    RECORDED,
    RUN_PAGE,
    RUN_REFERENCE,
    STRIP,
)
from cgan.quality.table import Report, class_table, floors, quality_table, tracked
from cgan.run.lifecycle import reopen
from cgan.run.tracker import Tracker
from cgan.stages.runner import run_stage
from cgan.store.pages import REAL_IMAGES, real_images_tag

# MLflow compares two runs' files where they lie at the top, not in folders: what is looked at first is there.
FILES = {
    "": (STRIP, GRID, FILM, CONFUSION, RUN_PAGE),
    "samples": (NINE, LATENT_INTERPOLATION, CLASS_INTERPOLATION),
    "reports": (EVALUATION, METRICS, *CURVES, *DIAGRAMS),
}

log = logging.getLogger(__name__)


def main() -> None:
    report = _evaluation()
    with reopen(RUN_REFERENCE) as tracker:
        _numbers(tracker, report)
        for place, paths in FILES.items():
            for path in paths:
                tracker.log_file(path, place)
    write_json(RECORDED, tracked(report))
    log.info("%d numbers, the tables and the pictures are on the run's page.", len(tracked(report)))


def numbers() -> None:
    """What a sweep's trial is judged by; it has no pictures."""
    report = _evaluation()
    with reopen(RUN_REFERENCE) as tracker:
        _numbers(tracker, report)
        tracker.log_file(EVALUATION, "reports")


def _numbers(tracker: Tracker, report: Report) -> None:
    # At step 0: MLflow draws a single number of a later step as a line chart of one dot.
    tracker.log_metrics(tracked(report), 0)
    tracker.set_tags({REAL_IMAGES: real_images_tag(floors(report))})
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        for name, rows in {"quality": quality_table, "quality_by_class": class_table}.items():
            table = Path(folder) / f"{name}.csv"
            with table.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows(report))
            tracker.log_file(table)


def _evaluation() -> Report:
    """The report on the generator at hand. Raises ModelError for one of another generator."""
    try:
        report = dict(json.loads(EVALUATION.read_text(encoding="utf-8")))
        judged = report["passport"]["generator_digest"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{EVALUATION}: no readable report. Make it again: `dvc repro --force evaluate`."
        ) from None
    if judged != read_facts(GENERATOR, "generator")["digest"]:
        raise ModelError(
            f"{EVALUATION}: of another generator than {GENERATOR}. Restore both with `dvc checkout`, or run "
            "`dvc repro`."
        )
    return report


if __name__ == "__main__":
    run_stage(numbers if sys.argv[1:] == ["numbers"] else main)
