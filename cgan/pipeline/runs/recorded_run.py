"""What is known of a run: its evaluation and what made it, out of a project's folder or of MLflow."""

import re
from pathlib import Path

from cgan.errors import CganError
from cgan.evaluation import Evaluation
from cgan.model.file_facts import read_facts
from cgan.pipeline.registry.client import CHAMPION, evaluation_of, model_name, open_registry
from cgan.pipeline.tracking.run import TrainingRecord, read_training
from cgan.project import EVALUATION, GENERATOR, TRAINING


def read_run(what: str) -> tuple[Evaluation, TrainingRecord]:
    """The evaluation of a project's folder, or of what `find_run_id` takes; and `run_name` and
    `params` of the training, flat and as text, with what was chosen for `auto`.

    Raises CganError where there is none.
    """
    if (folder := Path(what)).is_dir():
        evaluation, training = present_evaluation(folder), read_training(folder / TRAINING)
        training["params"] = {key: str(value) for key, value in training["params"].items()}
        return evaluation, training
    run_id = find_run_id(what)
    with open_registry() as registry:
        of_run = evaluation_of(registry, run_id)
        run = registry.client.get_run(run_id)
        if not of_run:
            raise CganError(
                f"run {run_id} has no evaluation in {registry.address}: the stage `record` was not run for "
                "it. `dvc repro` records the project's present run."
            )
    params, name = dict(run.data.params), str(run.info.run_name)
    return of_run, {"run_id": run_id, "run_name": name, "params": params}


def present_evaluation(folder: Path) -> Evaluation:
    """The evaluation in a project's folder. Raises CganError where it is of another generator than the one
    there; without one, as where reports were pulled alone, nothing is compared."""
    evaluation, generator = Evaluation.read(folder / EVALUATION), folder / GENERATOR
    if generator.is_file() and not evaluation.is_of(read_facts(generator, "generator")):
        raise CganError(
            f"{folder / EVALUATION}: of another generator than the present {generator}. `dvc repro` "
            "measures that."
        )
    return evaluation


def find_run_id(what: str) -> str:
    """The run of an id, of an alias or of `models:/NAME@ALIAS`. Raises CganError."""
    if match := re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?", what):
        return match[1]
    if match := re.fullmatch(r"models:/([\w.-]+)(?:@([^@/]+)|/(\d+))", what):
        model, alias, digits = match.groups()
    else:
        model, alias, digits = model_name(), what, ""
    with open_registry(model) as registry:
        number = int(digits) if digits else registry.aliases().get(alias)
        if number is None and alias == CHAMPION:
            raise CganError(f"{what!r}: there is no champion yet. `cgan gate` makes the first.")
        if number is None:
            raise CganError(
                f"{what!r} names no run: expected a run's id in MLflow, an alias like `champion`, or "
                "`models:/NAME@ALIAS`. `cgan registry list` shows the aliases."
            )
        return registry.version(number).run_id
