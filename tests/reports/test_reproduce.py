"""Runs of a real project (git, DVC, sqlite store) repeated: equal bytes, or plain words why not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT, TINY
from synthetic import make_images, write_csv

SECRET = "planted-secret-0123456789"


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": ".", "SOME_TOKEN": SECRET, **more}


@dataclass(frozen=True)
class Project:
    """A clone-like folder with its own package, repository, cache and store."""

    folder: Path

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=environment(**more), capture_output=True, text=True
        )

    def succeed(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def train(self) -> str:
        """The run id of what `dvc repro train` made."""
        self.succeed(sys.executable, "-m", "dvc", "repro", "train")
        run_id = json.loads((self.folder / "models/mlflow_run.json").read_text())["run_id"]
        assert run_id, "MLflow has it"
        return str(run_id)

    def reproduce(self, what: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = self.run(sys.executable, "-m", "cgan.cli", "reproduce", what, **more)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def query(self, question: str, *values: str) -> list[tuple[str, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / "mlflow.db")) as store, store:
            return store.execute(question, values).fetchall()

    def tag(self, run_id: str, key: str) -> str:
        found = self.query("select value from tags where run_uuid = ? and key = ?", run_id, key)
        return found[0][0] if found else ""

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.query("update tags set value = ? where run_uuid = ? and key = ?", value, run_id, key)

    def state(self) -> dict[str, str]:
        """Hashes of all that a repeat must leave alone; the store aside, which takes the tag."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        ignored = ("mlflow.db", "__pycache__", ".cgan/store.lock", ".dvc/tmp", ".dvc/cache")
        kept = [p for p in files if not any(part in str(p) for part in ignored)]
        hashes = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}
        runs = self.query("select run_uuid, status, end_time from runs")
        return {**hashes, "runs": str(sorted(runs))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Project, str]:
    """A project with a run whose params.yaml was changed after the commit, as a flow's overrides do."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "cgan", folder / "cgan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / ".gitignore", folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    params["tracking"]["system_metrics"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_csv(folder / "inbox/digits.csv", *make_images())
    shutil.copyfile(empty_store, folder / "mlflow.db")
    project = Project(folder)
    project.succeed("git", "init", "--quiet", "-b", "main")
    project.succeed(sys.executable, "-m", "dvc", "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    project.succeed("git", "add", ".")
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    project.succeed("git", *identity, "commit", "--quiet", "-m", "first")

    params["train"]["seed"] = 5
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / ".env").write_text(f"TOKEN={SECRET}\n")
    return project, project.train()


@pytest.fixture
def project(trained: tuple[Project, str], tmp_path: Path) -> Iterator[Project]:
    """The project, as it was afterwards; temporary files of its commands under `tmp_path`."""
    store = trained[0].folder / "mlflow.db"
    before = store.read_bytes()
    yield trained[0]
    store.write_bytes(before)


@pytest.mark.slow
def test_what_a_run_was_made_from_is_at_the_run_and_no_secret_is(
    project: Project, trained: tuple[Project, str]
) -> None:
    run_id = trained[1]
    csv = (project.folder / "data/raw/train.csv").read_bytes()
    for key, value in {
        "git.dirty": "true",
        "git.changed_files": "params.yaml",
        "dvc.csv_md5": hashlib.md5(csv).hexdigest(),
        "cgan.csv_sha256": hashlib.sha256(csv).hexdigest(),
    }.items():
        assert project.tag(run_id, key) == value
    for key in ("torch.version", "machine.cpu", "machine.cores", "cgan.device", "cgan.precision"):
        assert project.tag(run_id, key)
    source = project.folder / f"mlartifacts/{run_id}/artifacts/source"
    assert "+  seed: 5" in (source / "patch.diff").read_text()
    assert {path.name for path in source.iterdir()} >= {"params.yaml", "dvc.yaml", "dvc.lock"}
    files = [path for path in (project.folder / "mlartifacts").rglob("*") if path.is_file()]
    for path in [*files, project.folder / "mlflow.db"]:
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.slow
def test_what_cannot_be_repeated_is_refused_with_the_way_out(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    def refused(what: str, *words: str) -> None:
        done = project.reproduce(what, TMPDIR=str(tmp_path))
        assert done.returncode == 1 and not list(tmp_path.glob("cgan-*"))
        for each in words:
            assert each in done.stderr

    refused("0" * 32, "0" * 32)
    refused("champion", "champion")
    refused("models:/../etc@champion", "names no run")
    run_id = trained[1]
    project.set_tag(run_id, "cgan.csv_sha256", "0" * 64)
    places = ("data/raw/train.csv: other", "DVC's cache or remote: other", "the data source: ")
    refused(run_id, "sha256 " + "0" * 64, *places)
    project.set_tag(run_id, "git.changed_files", "cgan/training/losses.py, params.yaml")
    refused(run_id, "`source/patch.diff`", "(cgan/training/losses.py, params.yaml)")


@pytest.mark.slow
def test_bytes_that_differ_are_told_with_what_differs_and_a_signal_leaves_no_clone(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    """As if the run had been made on another machine."""
    run_id = trained[1]
    project.set_tag(run_id, "cgan.generator_sha256", "0" * 64)
    project.set_tag(run_id, "torch.version", "2.0.0")
    project.set_tag(run_id, "machine.cpu", "Zilog Z80")
    done = project.reproduce(run_id)
    assert done.returncode == 1
    for words in ("NOT the same", "0" * 64, "torch.version: 2.0.0 then, ", "cpu: Zilog Z80 then, "):
        assert words in done.stdout
    assert "cgan.device" not in done.stdout
    assert "NOT the same" in project.tag(run_id, "cgan.reproduced")

    process = subprocess.Popen(
        [sys.executable, "-m", "cgan.cli", "reproduce", run_id],
        cwd=project.folder,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    next(line for line in process.stdout if line.startswith("Running stage 'train_judge'"))
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in rest
    assert not list(tmp_path.glob("cgan-*"))
    assert not [p for p in psutil.process_iter(["cwd"]) if str(tmp_path) in (p.info["cwd"] or "")]


@pytest.mark.slow
def test_a_run_is_repeated_though_the_tree_went_on_and_only_dvcs_remote_has_the_data(
    trained: tuple[Project, str], tmp_path: Path
) -> None:
    """Its params.yaml was changed after the commit, and nothing changes but a tag of the run."""
    project = Project(tmp_path / "copy")
    shutil.copytree(trained[0].folder, project.folder)
    dvc = (sys.executable, "-m", "dvc")
    remote = ("--local", "--default", "there", str(tmp_path / "remote"))
    project.succeed(*dvc, "remote", "add", "--quiet", *remote)
    project.succeed(*dvc, "push", "--quiet", "download")
    shutil.rmtree(project.folder / ".dvc/cache")
    shutil.rmtree(project.folder / "inbox")
    (project.folder / "data/raw/train.csv").unlink()
    (project.folder / "data/raw/train.csv").write_bytes(b"label,pixel0\n")
    (project.folder / "params.yaml").write_text("broken: [\n")
    before = project.state()
    done = project.reproduce(trained[1], TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the same bytes: {project.tag(trained[1], 'cgan.generator_sha256')}" in done.stdout
    assert "data from DVC's cache or remote" in done.stdout
    assert "the same bytes" in project.tag(trained[1], "cgan.reproduced")
    assert not list(tmp_path.glob("cgan-*")), "the clone is gone"
    after = project.state()
    assert {path: after.get(path) for path in before} == before
