"""A small training that is recorded, and a look into the database at what arrived."""

import contextlib
import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, answers, wait_until
from synthetic import a_model

from cgan.drawing.logged_model import save_mlflow_model
from cgan.params.reading import load_params
from cgan.registry.client import Registry
from cgan.stages.origin import facts_of_here, log_source, origin, run_name, source_of_here
from cgan.stages.train import as_run, system_load
from cgan.tracking import runs as tracking
from cgan.tracking.records import runs
from cgan.tracking.runs import Run, training_run
from cgan.tracking.store import RUN_ID, experiment_id
from cgan.training.auto import resolve

PARAMS = load_params(ROOT / "params.yaml")
FITTED = resolve(PARAMS.train)
DATASET = {"name": "sample", "path": "data/raw/train.csv", "sha256": "ab" * 32, "rows": 36}
STEPS = list(range(50, 501, 50))


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TRACKING_URI", "RUN_ID", "RUN_CONTEXT", "DEFAULT_ARTIFACT_ROOT"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "PATIENCE_S", 60.0)  # a busy machine's store is no slow one
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "dvc.yaml").touch()  # it is a project
    return tmp_path


@contextlib.contextmanager
def training(root: Path, key: str = "k1", experiment: str = "cgan") -> Iterator[Run]:
    """As the stage train records it."""
    source = source_of_here()
    with training_run(
        runs() / key,
        run_name(PARAMS.train),
        experiment,
        params=as_run(PARAMS, FITTED),
        tags={**facts_of_here(DATASET, source), "cgan.device": "cpu"},
        dataset=DATASET,
        origin=origin(DATASET, source),
    ) as run:
        run.load = system_load
        log_source(run, source)
        yield run


def log_steps(tracker: Run, steps: list[int] = STEPS) -> None:
    for step in steps:
        tracker.log_metrics({"loss/generator": 1 / step, "progress/kimg": step * 0.064}, step)
    tracker.log_image("previews", np.full((28, 56), 9, np.uint8), steps[-1])
    tracker.send(steps[-1])


def log_model(tracker: Run, root: Path) -> None:
    """As the stage record does."""
    save = functools.partial(save_mlflow_model, a_model(root / "generator.safetensors"))
    tracker.log_model(save, STEPS[-1], {"digest": "d", "load": f"runs:/{RUN_ID}/generator"})


def add_version(registry: Registry, seed: int, **tags: str) -> str:
    """A version with a generator of its own, `generator.safetensors`; the id of its run."""
    client, path = registry.client, a_model(Path("generator.safetensors"), seed=seed)
    if not registry.versions():
        client.create_registered_model(registry.model)
    run_id = str(client.create_run(experiment_id(client, "cgan")).info.run_id)
    client.log_artifact(run_id, str(path), "generator")
    client.create_model_version(registry.model, f"runs:/{run_id}/generator", run_id, tags=tags)
    return run_id


class Store:
    """What the database holds, past MLflow's own code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str, *values: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query, values).fetchall()

    def steps(self, key: str) -> list[int]:
        query = "select step from metrics where key = ? order by step"
        return [step for (step,) in self.rows(query, key)]

    def runs(self) -> list[tuple[str, str, str]]:
        return self.rows("select run_uuid, name, status from runs order by start_time")

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from tags where run_uuid = ?", run_id))

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from params where run_uuid = ?", run_id))


@contextlib.contextmanager
def mlflow_server(root: Path, port: int, *, shared: bool = True) -> Iterator[str]:
    """`cgan ui` on the project's sqlite file; killed in the end."""
    database = {"MLFLOW_BACKEND_STORE_URI": "sqlite:///mlflow.db"} if shared else {}
    site, command = f"http://127.0.0.1:{port}", [sys.executable, "-m", "cgan.cli", "ui"]
    with (root / "ui.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, **database},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"{site}/health"), 90)
        yield site
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
