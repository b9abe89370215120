"""SIGKILL of the whole pipeline, a training, a record and a gate: the same bytes, one run."""

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from door import LOG_EVERY, Project, environment, new_project
from tracked import Store

from cgan.files import sha256_of
from cgan.pipeline.tracking.tags import RUN_KEY_TAG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
KILLS = int(os.environ.get("CGAN_KILLS", "4"))
SEED = int(os.environ.get("CGAN_KILLS_SEED", "0"))
VICTIMS = ("dvc", "group", "cgan.stages", "everything")
# A kill can fall into DVC's write of its rwlock or of dvc.lock. There is no committed one here to bring
# back, so it goes.
WHOLE = """
[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock
python -m dvc status 2>&1 | grep --quiet "dvc.lock' " && rm dvc.lock
python -m dvc repro && python -m cgan.cli gate
"""
PARAMS: dict[str, dict[str, Any]] = {
    "train": {"total_kimg": 6.4, "batch_size": 8},
    "evaluate": {"samples": 100, "gan_train_kimg": 0.05},
    "gate": {f"min_{name}_accuracy": 0.0 for name in ("conditional", "worst_class", "judge")},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    project = new_project(tmp_path_factory.mktemp("template") / "project")
    project.set(**PARAMS)
    (project.folder / "whole.sh").write_text(WHOLE)
    project.run("git add .")
    project.run("git -c user.name=t -c user.email=t@t commit --quiet -m params")
    shutil.copyfile(empty_store, project.folder / "mlflow.db")
    return project


def results(project: Project) -> dict[Path, str]:
    """What the stages made, but for what names run and time."""
    folders = ("models", "samples", "data", "reports")
    found = [path for name in folders for path in project.folder.glob(f"{name}/**/*")]
    named = (
        "mlflow_run.json",
        "training.json",
        "dvc.lock",
        "gate.json",
        "gate.md",
        "run.html",
        "README.md",
    )
    # DVC's own copies, which it leaves where it was killed: a dot, 22 characters and `.tmp`, never ours.
    found = [path for path in found if not re.fullmatch(r"\.[\w-]{22}\.tmp", path.name)]
    files = [path for path in found if path.is_file() and path.name not in named]
    return {path.relative_to(project.folder): sha256_of(path) for path in files}


def targets(project: Project, victim: str, group: int) -> list[psutil.Process]:
    """Of those that work there: all, those of the group, or `python -m VICTIM…`, not the shell around it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.cwd() == str(project.folder) and process.status() != psutil.STATUS_ZOMBIE:
                shell = process.name() in ("sh", "bash")
                started = any(word.startswith(victim) for word in process.cmdline()) and not shell
                of_group = victim == "group" and os.getpgid(process.pid) == group
                found += [process] if victim == "everything" or of_group or started else []
    return found


def start(project: Project) -> subprocess.Popen[bytes]:
    """All of it, in a process group of its own, which nobody ends: what survives a kill goes on."""
    with (project.folder / "words.log").open("ab") as words:
        return subprocess.Popen(
            ["bash", "whole.sh"],
            cwd=project.folder,
            env=environment(),
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def strike(project: Project, runner: subprocess.Popen[bytes], victim: str) -> bool:
    """SIGKILL → was there somebody to kill?"""
    killed = targets(project, victim, runner.pid)
    if victim == "group":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(runner.pid, signal.SIGKILL)
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    # Dead, but not reaped by PID 1 yet, dvc still counts for DVC as one that holds its lock.
    orphans = [each for each in killed if each.pid != runner.pid]
    assert psutil.wait_procs(orphans, timeout=60)[1] == []
    return killed != []


def assert_undisturbed(project: Project, expected: dict[Path, str]) -> None:
    """Every byte, one finished run, no value of a metric twice, one model, one version, one champion."""
    rows = Store(project.folder / "mlflow.db").rows
    assert results(project) == expected
    ((run_id, status),) = rows("select run_uuid, status from runs")
    assert status == "FINISHED"
    reference = project.read("models/mlflow_run.json")
    assert reference["run_id"] == run_id
    assert reference["run_key"] and "</html>" in (project.folder / "reports/run.html").read_text()
    keys = rows(f"select value from tags where key = '{RUN_KEY_TAG}'")
    assert keys == [(reference["run_key"],)]
    counted = rows("select key, step, count(*) from metrics group by key, step")
    assert [row for row in counted if row[2] > 1] == []
    steps = sorted(step for key, step, _ in counted if key == "loss/generator")
    assert steps == list(range(LOG_EVERY, 801, LOG_EVERY))
    kinds = {key.partition("/")[0] for key, _, _ in counted}
    assert {"loss", "logits", "quality", "gate"} <= kinds
    assert rows("select count(*) from logged_models") == [(1,)]
    assert rows("select count(*) from model_versions") == [(1,)]
    assert rows("select alias, version from registered_model_aliases") == [("champion", 1)]
    assert "up to date" in project.run("python -m dvc status")


@pytest.fixture(scope="module")
def clean(
    template: Project, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[Path, str], float]:
    """The results of a run that nobody disturbs, and how many seconds it took."""
    project = template.copy(tmp_path_factory.mktemp("clean") / "project")
    began = time.monotonic()
    project.run("bash whole.sh")
    duration = time.monotonic() - began
    assert_undisturbed(project, results(project))
    return results(project), duration


def kill(project: Project, victim: str, ready: Callable[[], Any]) -> bool:
    """Start all of it, and strike once it is ready and there is somebody to kill. Returns whether it had not
    ended before."""
    runner = start(project)
    while runner.poll() is None and not ready():
        time.sleep(0.002)
    hit = False
    while runner.poll() is None and not hit:
        hit = strike(project, runner, victim)
        time.sleep(0.002)
    runner.wait()
    return hit


def test_a_pipeline_that_is_killed_ends_as_if_undisturbed(
    template: Project, clean: tuple[dict[Path, str], float], tmp_path: Path
) -> None:
    """At random moments, one kill after the other, until it ends."""
    expected, duration = clean
    dice, victims = random.Random(SEED), itertools.cycle(VICTIMS)
    project = template.copy(tmp_path / "project")
    for _ in range(KILLS):
        end = time.monotonic() + dice.random() * 0.6 * duration
        kill(project, next(victims), lambda: time.monotonic() > end)  # noqa: B023
    project.run("bash whole.sh")
    assert_undisturbed(project, expected)


@pytest.mark.parametrize("victim", ["cgan.stages.train", "cgan.stages.record", "cgan.cli"])
def test_a_training_a_record_and_a_gate_that_are_killed_are_one_run(
    template: Project, clean: tuple[dict[Path, str], float], tmp_path: Path, victim: str
) -> None:
    """The training with a checkpoint, the others when they are at work."""
    expected, _ = clean
    project = template.copy(tmp_path / "project")
    dice = random.Random(SEED)

    def ready() -> Any:
        if victim == "cgan.stages.train":
            return list(project.folder.glob(".cgan/runs/*/step-*.safetensors"))
        if targets(project, victim, 0):
            time.sleep(1 + dice.random())
            return True
        return False

    assert kill(project, victim, ready)
    project.run("bash whole.sh")
    assert_undisturbed(project, expected)
