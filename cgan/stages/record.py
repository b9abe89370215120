"""Stage record: what the stages made of a training, on the page of its MLflow run; the model card.

It depends on the file that names the run. So a new run gets numbers and pictures also where DVC restored
them from its cache, and neither evaluate nor render ran.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cgan.drawing.card import model_card
from cgan.drawing.logged_model import NOTE, save_mlflow_model
from cgan.errors import ModelError
from cgan.files import read_json, write_json, write_text
from cgan.metric import METRICS, Evaluation
from cgan.model.file_facts import read_facts
from cgan.project import (
    BESIDE_REAL,
    CARD,
    CLASS_INTERPOLATION,
    CONFUSION,
    CURVES,
    DIAGRAMS,
    EVALUATION,
    FILM,
    GENERATOR,
    GRID,
    LATENT_INTERPOLATION,
    METRICS_FILE,
    NINE,
    RECORDED,
    RUN_PAGE,
    RUN_REFERENCE,
    STRIP,
)
from cgan.quality.table import class_table, quality_table, tracked
from cgan.stages.runner import run_stage
from cgan.tracking.runs import MEASURED_WITH, reopen
from cgan.tracking.store import RUN_ID, artifact

# MLflow compares two runs' files where they lie at the top, not in folders: what is looked at first is there.
FILES = {
    "": (STRIP, GRID, BESIDE_REAL, FILM, CONFUSION, RUN_PAGE),
    "samples": (NINE, LATENT_INTERPOLATION, CLASS_INTERPOLATION),
    "reports": (EVALUATION, METRICS_FILE, *CURVES, *DIAGRAMS),
}

NOTE_TAG = "mlflow.note.content"  # what MLflow's pages show on top, in Markdown
ARROWS = {"higher": "↑", "lower": "↓"}

log = logging.getLogger(__name__)


def main() -> None:
    report, facts = read_json(EVALUATION), read_facts(GENERATOR, "generator")
    if report.get("measurement_context", {}).get("generator_digest") != facts["digest"]:
        raise ModelError(
            f"{EVALUATION}: not a report on the present {GENERATOR}. Run `dvc repro`, or restore both with "
            "`dvc checkout`."
        )
    # `numbers`: what a sweep's trial is judged by; it has no pictures.
    files = {"reports": (EVALUATION,)} if sys.argv[1:] == ["numbers"] else FILES
    with reopen() as tracker:
        write_text(CARD, model_card(facts, report, read_json(RUN_REFERENCE), f"../{GRID}"))
        tracker.log_file(CARD)
        # At step 0: MLflow draws a single number of a later step as a line chart of one dot.
        tracker.log_metrics(tracked(report), 0)
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            for name, rows in {"quality": quality_table, "quality_by_class": class_table}.items():
                table = Path(folder) / f"{name}.csv"
                with table.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(rows(report))
                tracker.log_file(table)
        for place, paths in files.items():
            for path in paths:
                tracker.log_file(path, place)
        save = functools.partial(save_mlflow_model, GENERATOR)
        tracker.log_model(
            save, int(facts.get("steps", 0)), {"digest": facts["digest"], NOTE_TAG: NOTE}
        )
        drawn = f"\n\n![A drawing of each class]({artifact(RUN_ID, STRIP.name)})"
        note = headline(tracked(report)) + (drawn if files is FILES else "")
        tracker.set_tags({NOTE_TAG: note, MEASURED_WITH: measured_with(report)})
    write_json(RECORDED, tracked(report))
    sent = "numbers and tables" if files is not FILES else "numbers, tables and pictures"
    log.info("The run's page in MLflow has its %d %s.", len(tracked(report)), sent)


def measured_with(report: Evaluation) -> str:
    """The same for numbers that can be compared."""
    context = report["measurement_context"] | {"generator_digest": ""}
    return hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:16]


def headline(numbers: Mapping[str, float]) -> str:
    """The numbers that lead a run's page."""
    return " · ".join(
        f"{row.headline} {ARROWS[row.better]} **{row.shown(numbers[f'quality/{key}'])}**"
        for key, row in METRICS.items()
        if row.headline and f"quality/{key}" in numbers
    )


if __name__ == "__main__":
    run_stage(main)
