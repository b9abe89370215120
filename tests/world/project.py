"""A project in which everything has run, made once a test run; copies, and other generators for its gate."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer
from safetensors.numpy import load_file

from cgan.base.commands import run_app
from cgan.base.files import sha256_of, write_json
from cgan.data.images import Images, load_images
from cgan.models.model_file import load_tensors, save_generator
from cgan.models.networks import Architecture, GeneratorNetwork, build_generator
from cgan.pipeline.project import CSV, DATA_SOURCE, GATE_REPORT, GENERATOR, RUN_LOCATION, TRAIN_DATA
from world.door import ROOT, commit, run, started, wait_until, write_params
from world.images import UNEVEN, uneven, write_csv

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from cgan.pipeline.tracking.run import TrainingRecord

STEPS, LOG_EVERY = 200, 50
SMALL: dict[str, dict[str, Any]] = {
    **UNEVEN,
    "data": {"source": "file", "path": "inbox/digits.csv"},
    "preprocess": {"holdout_fraction": 0.3},
    "train_judge": {"total_kimg": 6.0},
    "train": {
        **{"latent_dim": 8, "generator_width": 8, "discriminator_width": 8, "probes": 2},
        **{"batch_size": 16, "total_kimg": STEPS * 16 / 1000, "ema_half_life_kimg": 0.2},
        **{"device": "cpu", "precision": "float32"},
    },
    "evaluate": {"samples": 300, "gan_train_kimg": 0.0},
    "gate": {
        **{"max_fid_over_floor": 1e6, "max_copies_over_floor": 0.99, "max_drawn_shift": 1e6},
        **{"max_outliers": 1.0, "min_worst_class_diversity": 0.0, "min_judge_accuracy": 0.8},
        **{"min_relative_accuracy": 0.7},
    },
}


@dataclass(frozen=True)
class Project:
    """Used from outside: by commands, files, HTTP and MLflow's client."""

    folder: Path

    def run(self, command: str, code: int = 0, **env: str) -> str:
        return run(*command.split(), cwd=self.folder, code=code, **env)

    def set(self, **sections: dict[str, Any]) -> None:
        """`set(train={"seed": 2})` edits params.yaml."""
        write_params(self.folder, **sections)

    def started(
        self, command: str, **env: str
    ) -> contextlib.AbstractContextManager[tuple[subprocess.Popen[str], Path]]:
        return started(*command.split(), cwd=self.folder, **env)

    def cut_off(self, command: str, when: Callable[[], Any], number: int, **env: str) -> int:
        """Send the process group of a command a signal once something is true; its exit code."""
        with self.started(command, **env) as (process, output):
            wait_until(lambda: when() or process.poll() is not None, 300)
            assert process.poll() is None, output.read_text()
            os.killpg(process.pid, number)
            return process.wait()

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def weights(self) -> dict[str, bytes]:
        """Of the generator; how they were made is left out."""
        tensors = load_file(self.folder / GENERATOR)
        return {name: values.tobytes() for name, values in tensors.items()}

    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, about SQLAlchemy
            return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, client: MlflowClient | None = None) -> list[Run]:
        client = client or self.client()
        experiment = client.get_experiment_by_name("cgan")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def copy(self, folder: Path) -> Project:
        """With a store of its own: MLflow keeps absolute addresses."""
        shutil.copytree(self.folder, folder, symlinks=True)
        old, new = str(self.folder), str(folder)
        columns = "select t.name, c.name from sqlite_master t, pragma_table_info(t.name) c"
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
            for table, column in store.execute(f"{columns} where t.type = 'table'").fetchall():
                change = f'update {table} set "{column}" = replace("{column}", ?, ?)'
                store.execute(f'{change} where "{column}" like ?', (old, new, f"%{old}%"))
        return Project(folder)


def new_project(folder: Path) -> Project:
    """A repository of what git tracks here, with small params and a CSV of its own."""
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # A busy machine's store is no slow one, and a short training is killed at a checkpoint, too.
    for name, constant, value in (
        ("pipeline/tracking/live", "PATIENCE_S = 15.0 ", "PATIENCE_S = 120.0 "),
        ("training/loop", "SAVE_EVERY = 250 ", "SAVE_EVERY = 20 "),
    ):
        source = folder / f"cgan/{name}.py"
        source.write_text(source.read_text().replace(constant, value))
    write_params(folder, **SMALL)
    write_csv(folder / "inbox/digits.csv", uneven(times=3))
    commit(folder)
    return Project(folder)


# To start a process for each, as DVC does, takes longer than what they do. A slow test compares both.
ALL_STAGES = """
import importlib, yaml
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.gate import judge_and_promote
for name in yaml.safe_load(open("dvc.yaml"))["stages"]:
    importlib.import_module(f"cgan.stages.{name}").main()
judge_and_promote(load_params(), print)
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    """All stages and the gate have run here, once for all processes of a test run, and DVC knows it. For
    those that change nothing; others take `copied`."""
    base = tmp_path_factory.getbasetemp()
    project = Project((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished")
    with project.folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (project.folder / GATE_REPORT).exists():
            new_project(project.folder)
            shutil.copyfile(empty_store, project.folder / "mlflow.db")
            # Whatever store a test before has left.
            run(sys.executable, "-c", ALL_STAGES, cwd=project.folder, MLFLOW_TRACKING_URI="")
            project.run("dvc commit --force --quiet")
    return project


@pytest.fixture
def copied(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the finished project, to change: the working directory."""
    project = finished.copy(tmp_path / "copied")
    monkeypatch.chdir(project.folder)
    if "mlflow" in sys.modules:  # a gate before this one has set it
        sys.modules["mlflow"].set_tracking_uri(None)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # By a run's id, which all copies have in common, MLflow keeps the place of its files.
        sys.modules["mlflow.tracking._tracking_service.utils"]._artifact_repos_cache.clear()
    return project


def sent_once(client: MlflowClient, run: Run, step: int = STEPS, every: int = LOG_EVERY) -> None:
    """Losses at each recorded step once, and no point of any metric twice."""
    for key in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
        assert len(steps) == len(set(steps)), f"{key}: {steps}"
        if key.startswith("loss/"):
            assert sorted(steps) == list(range(every, step + 1, every)), f"{key}: {steps}"


def page_data(page: str) -> dict[str, Any]:
    """What stands in a page as JSON."""
    start = page.index('id="page-data">') + len('id="page-data">')
    found: dict[str, Any] = json.loads(page[start : page.index("</script>", start)])
    return found


# --- for the gate, in the working directory ---------------------------------------------------------


def remade(data: Images) -> None:
    """A new CSV, and the parts and the judge made from it."""
    from cgan.stages import preprocess, train_judge, validate

    write_csv(CSV, data)
    write_json(DATA_SOURCE, {"source": "file", "origin": "digits.csv", "rows": len(data)})
    for stage in (validate, preprocess, train_judge):
        stage.main()


@functools.cache
def fitted(digest: str, steps: int) -> GeneratorNetwork:
    """A generator that tends to the mean image of each class, closer with each step."""
    data = load_images(TRAIN_DATA)
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", data.classes, *data.shape, 8, 8)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    pixels, labels = data.tensors.pixels.float() / 127.5 - 1, data.tensors.labels
    asked = torch.arange(12 * data.classes) % data.classes
    real = torch.stack([pixels[labels == label].mean(dim=0) for label in range(data.classes)])
    for _ in range(steps):
        drawn = network(torch.randn(len(asked), 8), asked)
        optimizer.zero_grad()
        (drawn - real[asked]).square().mean().backward()
        optimizer.step()
    return network.eval()


def fit_again(key: str, steps: int) -> None:
    """What the stages train and record leave: another generator, and its complete run in MLflow."""
    from cgan.pipeline.tracking.logged_model import save_mlflow_model
    from cgan.pipeline.tracking.run import open_run

    data = load_images(TRAIN_DATA)
    facts = {"data_sha256": data.source_sha256, "data_digest": data.digest, "steps": steps}
    facts["class_names"] = data.class_names
    save_generator(GENERATOR, fitted(data.digest, steps), facts)
    about: TrainingRecord = {"run_key": key, "run_name": f"fit of {steps} steps", "began_ms": 1}
    about["experiment"] = "cgan"
    with open_run(about) as run:
        run.set_tags({"cgan.generator_sha256": sha256_of(GENERATOR)})
        tags = {"digest": load_tensors(GENERATOR, "generator")[1]["digest"]}
        run.log_model(functools.partial(save_mlflow_model, GENERATOR), steps, tags)
        run.client.set_terminated(run.run_id, "FINISHED", 2000)
        write_json(RUN_LOCATION, {**about, **run.location})


def gated() -> tuple[dict[str, Any], list[str]]:
    """The gate's report, and what it said."""
    from cgan.pipeline.params_file import load_params
    from cgan.pipeline.registry.gate import judge_and_promote
    from cgan.quality import intervals

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "REPLICATES", 40)  # 200 take seconds
        judge_and_promote(load_params(), said.append)
    return json.loads(GATE_REPORT.read_text()), said


def of_store(pattern: str) -> Path:
    """The one file or folder of the project's store."""
    [found] = Path("mlartifacts").glob(pattern)
    return found


def exit_code(app: typer.Typer, *arguments: str) -> object:
    """The exit code of a command of ours, run in this process."""
    with pytest.raises(SystemExit) as ended:
        run_app(partial(app, arguments))
    return ended.value.code
