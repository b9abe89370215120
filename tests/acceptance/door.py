"""A project in a folder, used from outside: by commands, files, HTTP and MLflow's client."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, wait_until, write_params
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.numpy import load_file

BIN = Path(sys.executable).parent
NAMES = ["bar", "post", "ring"]
STEPS, LOG_EVERY = 200, 50
NETWORKS = {"latent_dim": 8, "generator_width": 8, "discriminator_width": 8}
PACE = {"batch_size": 16, "total_kimg": STEPS * 16 / 1000, "ema_half_life_kimg": 0.2}
PARAMS: dict[str, dict[str, Any]] = {
    "data": {"source": "file", "path": "inbox/signs.csv"},
    "validate": {"class_names": NAMES},
    "preprocess": {"holdout_fraction": 0.3},
    "train_judge": {"total_kimg": 4.0},
    "train": {**NETWORKS, **PACE, "probes": 2, "device": "cpu", "precision": "float32"},
    "evaluate": {"samples": 300, "gan_train_kimg": 0.0},
    "gate": {
        "max_fid_over_floor": 1e6,
        "max_copies_over_floor": 0.99,
        "min_worst_class_diversity": 0.0,
        "max_drawn_shift": 1e6,
        "max_outliers": 1.0,
        "min_conditional_accuracy": 0.7,
        "min_worst_class_accuracy": 0.5,
        "min_judge_accuracy": 0.8,
    },
}


def signs_csv(per_class: int = 60) -> str:
    """Kaggle's form: a bar across, a bar down and a ring, of 8 × 8 pixels."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:8] - 3.5
    lines = [",".join(["label", *(f"pixel{i}" for i in range(64))])]
    for label in [0, 1, 2] * per_class:
        b, a = y - random.normal(0, 0.4), x - random.normal(0, 0.4)
        shape = np.exp(-[b**2, a**2, (np.hypot(b, a) - 2.5) ** 2][label])
        pixels = np.clip(240 * shape + random.normal(0, 8, (8, 8)), 0, 255).astype(int)
        lines.append(",".join(map(str, [label, *pixels.ravel()])))
    return "\n".join(lines) + "\n"


def environment(**more: str) -> dict[str, str]:
    foreign = ("MLFLOW_", "DVC_", "PREFECT_", "CGAN_", "GIT_", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1", **more}


def run(folder: Path, command: str, code: int = 0, **env: str) -> str:
    """All that a command prints; it must end with this exit code, and never with a traceback."""
    done = subprocess.run(
        command.split(),
        cwd=folder,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Project:
    folder: Path

    def run(self, command: str, code: int = 0, **env: str) -> str:
        return run(self.folder, command, code, **env)

    def set(self, **sections: dict[str, Any]) -> None:
        """`set(train={"seed": 2})` edits params.yaml."""
        write_params(self.folder, **sections)

    @contextlib.contextmanager
    def started(self, command: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """A command in a process group of its own, as a terminal starts it, and the file of its output."""
        output = self.folder / ".cgan" / "output.log"
        output.parent.mkdir(exist_ok=True)
        with output.open("w") as file:
            process = subprocess.Popen(
                command.split(),
                cwd=self.folder,
                env=environment(**env),
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        try:
            yield process, output
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

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
        file = self.folder / "models/generator.safetensors"
        return {name: values.tobytes() for name, values in load_file(file).items()}

    def client(self) -> MlflowClient:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, about SQLAlchemy
            return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, client: MlflowClient | None = None) -> list[Run]:
        client = client or self.client()
        experiment = client.get_experiment_by_name("cgan")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def new_project(folder: Path) -> Project:
    """A repository of what git tracks here, with small params and a CSV of its own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    project = Project(folder)
    live = folder / "cgan/pipeline/tracking/live.py"
    # A busy machine's store is no slow one.
    live.write_text(live.read_text().replace("PATIENCE_S = 4.5 ", "PATIENCE_S = 120.0 "))
    project.set(**PARAMS)
    (folder / "inbox").mkdir()
    (folder / "inbox/signs.csv").write_text(signs_csv())
    project.run("git init --quiet .")
    project.run("git add .")
    project.run("git -c user.name=t -c user.email=t@t commit --quiet -m start")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`dvc repro` and the gate have run here, once for all processes of a test run. For those that change
    nothing; others take a copy."""
    base = tmp_path_factory.getbasetemp()
    project = Project((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished")
    with project.folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not project.folder.exists():
            new_project(project.folder)
            project.run("dvc repro")
            project.run("cgan gate")
    return project


def sent_once(client: MlflowClient, run: Run, step: int = STEPS, every: int = LOG_EVERY) -> None:
    """Losses at each recorded step once, and no point of any metric twice."""
    for key in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
        assert len(steps) == len(set(steps)), f"{key}: {steps}"
        if key.startswith("loss/"):
            assert sorted(steps) == list(range(every, step + 1, every)), f"{key}: {steps}"


MANY = """
import contextlib, io, json, os, sys
from cgan.cli import main
ended = []
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv, words, code = ["cgan", *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        try:
            main()
        except SystemExit as end:
            code = end.code
    ended.append([code, words.getvalue()])
json.dump(ended, sys.stdout)
"""


def many(calls: list[tuple[Path, list[str]]]) -> list[tuple[int, str]]:
    """Exit code and output of each `cgan …`, all in one process, as a start takes a second."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps([(str(folder), arguments) for folder, arguments in calls]),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(code, words) for code, words in json.loads(done.stdout)]
