"""Runs in a project's folder or in MLflow: the generator, how good it is, and what made it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cgan.base.errors import CganError, ModelError
from cgan.base.report import Report, Table
from cgan.drawing.generator import Generator
from cgan.models.file_facts import read_facts
from cgan.pipeline.project import EVALUATION, GENERATOR, TRAINING
from cgan.pipeline.registry.client import model_name, open_registry
from cgan.pipeline.tracking.run import TrainingRecord, read_training
from cgan.quality.evaluation import Evaluation


@dataclass(frozen=True)
class ProjectRun:
    """What lies in a project's folder. All raise CganError for a file that is missing or damaged."""

    folder: Path

    @property
    def evaluation(self) -> Evaluation:
        """Evaluation of the project's generator. Raises CganError, too, where it is of another one; without a
        generator, as where reports were pulled alone, nothing is compared."""
        path, generator = self.folder / EVALUATION, self.folder / GENERATOR
        evaluation = Evaluation.read(path)
        if generator.is_file() and not evaluation.is_about(read_facts(generator, "generator")):
            raise CganError(f"{path}: of another generator than {generator}. Run `dvc repro`.")
        return evaluation

    @property
    def training(self) -> TrainingRecord:
        """`run_name` and `params`, flat and as text, with what was chosen for `auto`."""
        training = read_training(self.folder / TRAINING)
        params = {key: str(value) for key, value in training["params"].items()}
        return {**training, "params": params}


@dataclass(frozen=True)
class RecordedRun:
    """A run in MLflow; `uri`: of its generator. Evaluation and file raise ModelError where the store has
    none or it is damaged, and TrackingError where it is away; training raises TrackingError for both."""

    run_id: str
    uri: str

    @property
    def evaluation(self) -> Evaluation:
        address = f"runs:/{self.run_id}/{EVALUATION}"
        with open_registry() as registry, registry.downloaded(address) as path:
            return Evaluation.read(path)

    @property
    def training(self) -> TrainingRecord:
        with open_registry() as registry:
            run = registry.client.get_run(self.run_id)
        return {"run_name": str(run.info.run_name), "params": dict(run.data.params)}

    @contextlib.contextmanager
    def generator_file(self) -> Iterator[Path]:
        """A local copy, while the context lasts."""
        with open_registry() as registry, registry.downloaded(self.uri) as folder:
            files = sorted(folder.rglob(GENERATOR.name))
            if not files:
                raise ModelError(f"{folder}: contains no {GENERATOR.name}.")
            yield files[0]


def find_run(what: str) -> ProjectRun | RecordedRun:
    """The run of a project's folder, an id (`runs:/ID/generator`, too), an alias such as `champion`, or
    `models:/NAME@ALIAS` or `models:/NAME/VERSION`. Raises ModelError for an alias or version that is none."""
    if (folder := Path(what)).is_dir():
        return ProjectRun(folder)
    if match := re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})(/.*)?", what):
        return RecordedRun(match[1], f"runs:/{match[1]}{match[2] or '/generator'}")
    if match := re.fullmatch(r"models:/([\w.-]+)(?:@([^@/]+)|/(\d+))", what):
        model, alias, digits = match.groups()
    else:
        model, alias, digits = model_name(), what, ""
    with open_registry(model) as registry:
        number = int(digits) if digits else registry.aliases().get(alias)
        if number is None:
            raise ModelError(
                f"{what!r} names no run: expected a run's id, an alias of `{model}` in {registry.address}, "
                "such as `champion`, which `cgan gate` sets, models:/NAME@ALIAS, or a project's folder."
            )
        return RecordedRun(registry.version(number).run_id, f"models:/{model}/{number}")


def known_evaluation(generator: Generator) -> Evaluation | None:
    """The evaluation of these weights, as their file, this project or MLflow has it."""
    stated = generator.facts.get("quality")
    evaluation = Evaluation.from_json(stated) if stated else None
    with contextlib.suppress(CganError):
        if not evaluation and Path(generator.source).is_file():
            evaluation = Evaluation.read(EVALUATION)
        elif not evaluation:
            evaluation = find_run(generator.source).evaluation
    return evaluation if evaluation and evaluation.is_about(generator.facts) else None


def compare_runs(a: str, b: str) -> Report:
    """What `cgan.compare` says of two runs, each of which is what `find_run` takes; with their names and the
    params that differ."""
    found_a, found_b = find_run(a), find_run(b)
    evaluations = found_a.evaluation, found_b.evaluation
    from cgan.quality.comparison import compare  # with torch, for which no mistake has to wait

    report = compare(*evaluations).report()
    run_a, run_b = found_a.training, found_b.training
    params_a, params_b = run_a["params"], run_b["params"]
    rows = [(key, params_a.get(key, "–"), params_b.get(key, "–")) for key in params_a | params_b]
    names = "run", run_a.get("run_name", ""), run_b.get("run_name", "")
    differing = [row for row in rows if row[1] != row[2]]
    title = f"Params that differ: {len(differing) or 'none'}"
    table = Table(title, ("", "A", "B"), [names, *differing])
    return replace(report, tables=[*report.tables, table])
