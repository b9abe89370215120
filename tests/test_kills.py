"""SIGKILL, many times, at random moments of the whole pipeline and its gate: the same bytes, one run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from door import environment, new_project

from cgan.files import sha256_of
from cgan.tracking.delivery import RUN_KEY_TAG

KILLS = int(os.environ.get("CGAN_KILLS", "5"))
SEED = int(os.environ.get("CGAN_KILLS_SEED", "0"))
VICTIMS = ("dvc", "group", "stage", "everything")
# A kill can fall into DVC's write of its rwlock or of dvc.lock. There is no committed one here to bring
# back, so it goes.
WHOLE = (
    "[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock; "
    'python -m dvc status 2>&1 | grep --quiet "dvc.lock\' " && rm dvc.lock; '
    "python -m dvc repro && python -m cgan.cli gate"
)
PARAMS: dict[str, dict[str, Any]] = {
    "train": {"total_kimg": 0.96, "batch_size": 8, "log_every": 10, "save_every": 20},
    "evaluate": {"samples": 100, "gan_train_kimg": 0.05},
    "gate": {f"min_{name}_accuracy": 0.0 for name in ("conditional", "worst_class", "judge")},
}


def run(project: Path, command: str = WHOLE) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def rows(project: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as store:
        return store.execute(query).fetchall()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    project = new_project(tmp_path_factory.mktemp("template") / "project")
    project.set(**PARAMS)
    project.run("git add .")
    project.run("git -c user.name=t -c user.email=t@t commit --quiet -m params")
    shutil.copyfile(empty_store, project.folder / "mlflow.db")
    return project.folder


def results(project: Path) -> dict[str, str]:
    """What the stages made, but for what names run and time."""
    found = [
        p
        for folder in ("models", "samples", "data", "reports")
        for p in project.glob(f"{folder}/**/*")
    ]
    named = ("mlflow_run.json", "gate.json", "gate.md", "run.html", "README.md")
    # DVC's own copies, which it leaves where it was killed: a dot, 22 characters and `.tmp`, never ours.
    found = [path for path in found if not re.fullmatch(r"\.[\w-]{22}\.tmp", path.name)]
    files = [path for path in found if path.is_file() and path.name not in named]
    return {str(path.relative_to(project)): sha256_of(path) for path in sorted(files)}


def of_project(project: Path) -> list[psutil.Process]:
    """Every process that works there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(project) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_running(process: psutil.Process, word: str) -> bool:
    """`python -m WORD…`, and not the shell around it."""
    with contextlib.suppress(psutil.Error):
        return process.name() not in ("sh", "bash") and any(
            part.startswith(word) for part in process.cmdline()
        )
    return False


def start(project: Path) -> subprocess.Popen[bytes]:
    with (project / "words.log").open("ab") as words:
        return subprocess.Popen(
            ["bash", "-c", WHOLE],
            cwd=project,
            env=environment(),
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def strike(project: Path, runner: subprocess.Popen[bytes], victim: str) -> bool:
    """SIGKILL → was there somebody to kill?"""
    there = of_project(project)
    killed = []
    if victim == "group":
        if runner.poll() is not None:
            return False
        killed = [each for each in there if is_in_group(each, runner.pid)]
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    else:
        word = {"dvc": "dvc", "stage": "cgan.stages"}.get(victim, "")
        for process in there:
            if not word or is_running(process, word):
                with contextlib.suppress(psutil.Error):
                    process.kill()
                    killed.append(process)
    # Dead, but not reaped by PID 1 yet, dvc still counts for DVC as one that holds its lock.
    orphans = [each for each in killed if each.pid != runner.pid]
    _, left = psutil.wait_procs(orphans, timeout=60)
    assert left == []
    return victim == "group" or killed != []


def is_in_group(process: psutil.Process, group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(process.pid) == group
    return False


def assert_undisturbed(project: Path, expected: dict[str, str]) -> None:
    """Every byte, one finished run, no value of a metric twice, one model, one version, one champion."""
    assert results(project) == expected
    ((run_id, status),) = rows(project, "select run_uuid, status from runs")
    assert status == "FINISHED"
    # Its key finds the run; its id isn't known where nothing could be sent.
    reference = json.loads((project / "models/mlflow_run.json").read_text())
    assert reference["run_id"] in (None, run_id)
    assert reference["run_key"] and "</html>" in (project / "reports/run.html").read_text()
    assert rows(project, f"select value from tags where key = '{RUN_KEY_TAG}'") == [
        (reference["run_key"],)
    ]
    counted = rows(project, "select key, step, count(*) from metrics group by key, step")
    assert [row for row in counted if row[2] > 1] == []
    steps = sorted(step for key, step, _ in counted if key == "loss/generator")
    assert steps == list(range(10, 121, 10))
    keys = {key.partition("/")[0] for key, _, _ in counted}
    assert {"loss", "logits", "quality", "gate", "time"} <= keys
    assert rows(project, "select count(*) from logged_models") == [(1,)]
    assert rows(project, "select count(*) from model_versions") == [(1,)]
    assert rows(project, "select alias, version from registered_model_aliases") == [("champion", 1)]
    assert "up to date" in run(project, "python -m dvc status")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_f45_f78_f81_f82_f89_killed_at_random_the_pipeline_ends_as_if_nobody_had_disturbed_it(
    template: Path, tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    clean = tmp_path / "clean"
    shutil.copytree(template, clean, symlinks=True)
    began = time.monotonic()
    run(clean)
    duration = time.monotonic() - began
    expected = results(clean)
    assert_undisturbed(clean, expected)

    victims = itertools.cycle(VICTIMS)
    struck = 0
    while struck < KILLS:
        project = tmp_path / f"after-{struck}"
        shutil.copytree(template, project, symlinks=True)
        finished = False
        while not finished and struck < KILLS:
            victim = next(victims)
            end = time.monotonic() + dice.random() * 0.6 * duration
            runner = start(project)
            while runner.poll() is None and time.monotonic() < end:
                time.sleep(0.002)
            hit = False
            while runner.poll() is None and not hit:  # until there is such a process
                hit = strike(project, runner, victim)
                time.sleep(0.002)
            struck += hit
            finished = runner.wait() == 0 and not hit
            # The next one comes at once: what survives is in its way.
            if victim == "dvc":
                time.sleep(0.1)
        run(project)
        assert_undisturbed(project, expected)
        shutil.rmtree(project)
