"""Stage record: the MLflow run of a training, completed from what the stages left; the model card.

Whatever of it MLflow has already, from the training or from a record that was killed, is not sent again. If
MLflow is away, the stage fails; so it is stale, and the next `dvc repro` runs it.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cgan.base.files import locked, remove, sha256_of, write_json, write_text
from cgan.drawing.card import model_card
from cgan.models.file_facts import Facts, read_facts
from cgan.pipeline import project
from cgan.pipeline.project import CARD, EVALUATION, GENERATOR, GRID, SOURCE_FOLDER, STRIP, TRAINING
from cgan.pipeline.registry.runs import ProjectRun
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.logged_model import model_note, save_mlflow_model
from cgan.pipeline.tracking.run import TrackedRun, TrainingRecord, open_run, read_training
from cgan.quality.evaluation import Evaluation
from cgan.stages.runner import log, run_stage
from cgan.training.records import preview_paths, read_records

# MLflow compares two runs' files where they lie at the top, not in folders: what is looked at first is there.
FILES = {
    "": (STRIP, GRID, project.BESIDE_REAL, project.CONFUSION_MATRIX, project.RUN_PAGE, CARD),
    "samples": (project.LATENT_INTERPOLATION,),
    "reports": (
        *(EVALUATION, project.METRICS_FILE, project.LOSSES, project.PROBES),
        *(*project.CURVES, *project.DIAGRAMS),
    ),
    "networks": (GENERATOR,),
}

NOTE_TAG = "mlflow.note.content"  # what MLflow's pages show on top, in Markdown


def main() -> None:
    evaluation = ProjectRun(Path()).evaluation
    facts = read_facts(GENERATOR, "generator")
    training = read_training(TRAINING)
    remove_checkpoints(training)
    with open_run(training) as run:
        send_training(run, int(facts.get("steps", 0)))
        send_results(run, evaluation, facts)
    of_run = ("run_key", "run_name", "experiment")
    names = {key: value for key, value in training.items() if key in of_run}
    write_json(project.RUN_LOCATION, names | run.location)
    log.info("Recorded in MLflow, as run %s: numbers and pictures.", training["run_name"])


def remove_checkpoints(training: TrainingRecord) -> None:
    """Remove those of the training whose result DVC has, unless they are in use."""
    folder = project.training_folder(training["tags"][store.FINGERPRINT_TAG])
    with locked(project.training_lock(folder), wait=False) as is_free:
        if is_free and folder.is_dir():
            remove(folder)


def send_training(run: TrackedRun, steps: int) -> None:
    """Send what the training has not sent. The times of its steps are not known: they are spread evenly."""
    began_ms, ended_ms = run.training["began_ms"], run.training["ended_ms"]

    def time_of(step: int) -> int:
        return int(began_ms + (ended_ms - began_ms) * step / max(1, steps))

    run.log_inputs({store.GENERATOR_SHA256_TAG: sha256_of(GENERATOR)})
    run.log_files(sorted(SOURCE_FOLDER.glob("*")), SOURCE_FOLDER.name)
    run.log_metrics(
        (name, value, step, time_of(step))
        for path in (project.PROBES, project.LOSSES)
        for step, values in read_metrics(path)
        for name, value in values.items()
    )
    if "training_s" in run.training:
        run.log_metrics([("time/training_s", run.training["training_s"], 0, ended_ms)])
    # No images of MLflow's: its pages write all params of the run above each.
    run.log_files(preview_paths(project.PREVIEWS).values(), "samples/by_step")
    run.client.set_terminated(run.run_id, "FINISHED", ended_ms)


def read_metrics(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and metrics of each row of LOSSES or PROBES; `kimg` and rate are taken from LOSSES alone."""
    names = {"kimg": "progress/kimg", "learning_rate": "progress/learning_rate"}
    for row in read_records(path):
        step = int(row.pop("step"))
        if path == project.PROBES:
            row.pop("kimg")
        yield step, {names.get(name, name): value for name, value in row.items()}


def send_results(run: TrackedRun, evaluation: Evaluation, facts: Facts) -> None:
    """Files, the model, and what was measured of it. Of a sweep's trial there are fewer files."""
    report = evaluation.report(run.training.get("training_s"))
    write_text(CARD, model_card(facts, evaluation, f"../{GRID}"))
    for place, paths in FILES.items():
        run.log_files([path for path in paths if path.is_file()], place)
    save = functools.partial(save_mlflow_model, GENERATOR)
    tags = {"digest": facts["digest"], NOTE_TAG: model_note(run.run_id)}
    run.log_model(save, int(facts.get("steps", 0)), tags)
    run.log_final_metrics({f"quality/{key}": value for key, value in evaluation.values().items()})
    strip = store.strip_markdown(run.run_id) if STRIP.is_file() else ""
    note = replace(report, tables=()).as_markdown(strip)
    run.set_tags({NOTE_TAG: note, store.QUALITY_TAG: report.sentence})


if __name__ == "__main__":
    run_stage(main)
