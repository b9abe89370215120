"""SIGKILL of a sweep's driver and of its trainings, again and again: each result once, each step once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from conftest import ROOT, TINY
from optuna.trial import TrialState
from synthetic import make_images, write_csv
from test_resume import environment, rows

TRIALS = 6
KILLS = int(os.environ.get("CGAN_KILLS", "3"))
COMMAND = [sys.executable, "-m", "flows.sweep", "--trials", str(TRIALS), "--no-confirm"]


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Path:
    """The whole repository, with a training of a moment."""
    folder = tmp_path / "project"
    for package in ("cgan", "flows", "presets"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for name in ("dvc.yaml", "prefect.yaml"):
        shutil.copy(ROOT / name, folder)
    write_csv(folder / "inbox/digits.csv", *make_images())
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    params["train"] |= {"total_kimg": 0.48, "log_every": 10, "save_every": 10}
    params["evaluate"] |= {"gan_train_kimg": 0.0}
    params["sweep"] |= {
        "parallel": 2,
        "prune_after_trials": None,
        "space": {
            "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
            "train.generator_width": {"choices": [4, 6, 8]},
        },
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run = [
        "git init --quiet .",
        f"{sys.executable} -m dvc init --quiet",
        *(f"cp {ROOT / name} {name}" for name in (".dvc/config", ".dvcignore", ".gitignore")),
        "git add .",
        "git -c user.name=t -c user.email=t@t commit --quiet -m start",
    ]
    for command in run:
        subprocess.run(command, shell=True, cwd=folder, check=True, env=environment())
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder


def processes(project: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            inside = Path(process.cwd()).is_relative_to(project)
            python = process.name() not in ("sh", "bash")
            if inside and python and word in process.cmdline():
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_sweep_that_is_killed_goes_on_with_the_same_command(project: Path) -> None:
    dice = random.Random(0)
    struck = 0
    with (project / "words.log").open("ab") as words:
        while True:
            driver = subprocess.Popen(
                COMMAND, cwd=project, env=environment(), stdout=words, stderr=subprocess.STDOUT
            )
            if struck == KILLS:
                assert driver.wait(1500) == 0, (project / "words.log").read_text()
                break
            # In the middle of a training; once a training itself, whose process the driver starts again.
            while not (training := processes(project, "cgan.stages.train")):
                assert driver.poll() is None, (project / "words.log").read_text()
                time.sleep(0.05)
            time.sleep(3 * dice.random())
            if struck == 0:
                for process in training:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            time.sleep(3 * dice.random())
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            struck += 1
    said = (project / "words.log").read_text()
    assert "taken up again" in said

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{project / '.cgan/optuna.db'}")
    complete = study.get_trials(states=[TrialState.COMPLETE])
    assert len(complete) == TRIALS == len(study.trials)
    (parent,) = rows(
        project, "select run_uuid from tags where key = 'cgan.sweep.role' and value = 'parent'"
    )
    children = rows(
        project,
        "select value, count(*) from tags where key = 'cgan.sweep.job' and run_uuid in "
        f"(select run_uuid from tags where key = 'mlflow.parentRunId' and value = '{parent[0]}') "
        "group by value",
    )
    assert [count for _, count in children] == [1] * TRIALS
    twice = rows(
        project,
        "select run_uuid, key, step, count(*) from metrics group by 1, 2, 3 having count(*) > 1",
    )
    assert twice == []
    steps = rows(
        project, "select run_uuid, count(*) from metrics where key = 'loss/generator' group by 1"
    )
    assert {count for _, count in steps} == {6}
    assert {status for (status,) in rows(project, "select status from runs")} == {"FINISHED"}
    assert list((project / ".cgan/work").glob("*")) == []
    found = json.loads(next(project.glob(f"mlartifacts/{parent[0]}/**/sweep.json")).read_text())
    assert found["best"]["value"] == study.best_value
