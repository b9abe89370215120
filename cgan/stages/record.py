"""Stage record: what the stages made of a training, on the page of its MLflow run; the model card.

It depends on the file that names the run. So a new run gets numbers and pictures also where DVC restored
them from its cache, and neither evaluate nor render ran.
"""

import csv
import functools
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cgan import project
from cgan.drawing.card import model_card
from cgan.drawing.logged_model import NOTE, save_mlflow_model
from cgan.errors import ModelError
from cgan.evaluation import Evaluation, comparable
from cgan.files import read_json, write_json, write_text
from cgan.metric import METRICS, RANKED_BY
from cgan.model.file_facts import read_facts
from cgan.project import CARD, EVALUATION, GENERATOR, GRID, STRIP
from cgan.quality.table import class_table, tracked
from cgan.stages.runner import log, run_stage
from cgan.tracking.runs import MEASURED_WITH, reopen
from cgan.tracking.store import PICTURE

# MLflow compares two runs' files where they lie at the top, not in folders: what is looked at first is there.
FILES = {
    "": (STRIP, GRID, project.BESIDE_REAL, project.FILM, project.CONFUSION, project.RUN_PAGE),
    "samples": (project.NINE, project.LATENT_INTERPOLATION, project.CLASS_INTERPOLATION),
    "reports": (EVALUATION, project.METRICS_FILE, *project.CURVES, *project.DIAGRAMS),
}

NOTE_TAG = "mlflow.note.content"  # what MLflow's pages show on top, in Markdown
ARROWS = {"higher": "↑", "lower": "↓"}


def main() -> None:
    evaluation, facts = Evaluation.read(EVALUATION), read_facts(GENERATOR, "generator")
    if evaluation.generator_digest != facts["digest"]:
        raise ModelError(
            f"{EVALUATION}: not a report on the present {GENERATOR}. Run `dvc repro`, or restore both with "
            "`dvc checkout`."
        )
    # The same for distances that can be compared.
    measured_with = json.dumps(comparable(evaluation.context, RANKED_BY), sort_keys=True)
    numbers, recorded = tracked(evaluation), "numbers and tables"
    note = headline(numbers)
    files: Mapping[str, tuple[Path, ...]] = {"reports": (EVALUATION,)}
    if sys.argv[1:] != ["numbers"]:  # of a sweep's trial, which has no pictures
        files, recorded = FILES, "numbers, tables and pictures"
        note += f"\n\n{PICTURE}"
    with reopen() as tracker:
        reference = read_json(project.RUN_REFERENCE)
        write_text(CARD, model_card(facts, evaluation, reference, f"../{GRID}"))
        tracker.log_file(CARD)
        # At step 0: MLflow draws a single number of a later step as a line chart of one dot.
        tracker.log_metrics(numbers, 0)
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            tables = {"quality": evaluation.table(), "quality_by_class": class_table(evaluation)}
            for name, rows in tables.items():
                table = Path(folder) / f"{name}.csv"
                with table.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(rows)
                tracker.log_file(table)
        for place, paths in files.items():
            for path in paths:
                tracker.log_file(path, place)
        save = functools.partial(save_mlflow_model, GENERATOR)
        tags = {"digest": facts["digest"], NOTE_TAG: NOTE}
        tracker.log_model(save, int(facts.get("steps", 0)), tags)
        digest = hashlib.sha256(measured_with.encode()).hexdigest()[:16]
        tracker.set_tags({NOTE_TAG: note, MEASURED_WITH: digest})
    write_json(project.RECORDED, numbers)
    log.info("Recorded for the run's page in MLflow: %d %s.", len(numbers), recorded)


def headline(numbers: Mapping[str, float]) -> str:
    """The numbers that lead a run's page."""
    return " · ".join(
        f"{row.headline} {ARROWS[row.better]} **{row.shown(numbers[f'quality/{key}'])}**"
        for key, row in METRICS.items()
        if row.headline and f"quality/{key}" in numbers
    )


if __name__ == "__main__":
    run_stage(main)
