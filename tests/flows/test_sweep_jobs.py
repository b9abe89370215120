"""`python -m flows.sweep` and where its trainings run: processes, checkouts, a pool without workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from optuna import TrialPruned
from test_pipeline import prefect, pytestmark  # noqa: F401
from toy_project import git

from flows.sweep.jobs import Job, JobError, train_here

JOB = Job("sweep-trial-0", {"train.lr": 0.002}, {"cgan.sweep.job": "sweep-trial-0"})
LOG = Path(f".cgan/sweeps/{JOB.name}.log")
pytestmark = [*pytestmark, pytest.mark.slow]


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Does a job on this machine, with stages of a moment; none may be left in the end."""
    shutil.rmtree(repo / "cgan")  # the toy's; checkouts have it from git
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commit = git(repo, "rev-parse", "HEAD")
    LOG.parent.mkdir(parents=True)
    yield lambda job=JOB, watch=lambda: None: train_here(repo, commit, job, watch)
    for process in psutil.process_iter(["cwd", "cmdline"]):
        of_ours = str(process.info["cwd"]).startswith(str(repo))
        assert not (of_ours and "toy.py" in process.info["cmdline"]), process


def test_a_job_runs_in_a_checkout_of_its_own_with_its_params(here: Callable[..., None]) -> None:
    here()
    stages = re.findall(r"^(\w+): process", LOG.read_text(), re.M)
    assert stages == ["download", "train", "evaluate"]
    assert "lr: 0.002 " not in Path("params.yaml").read_text()
    assert not Path("reports").exists()
    here(Job("sweep-trial-1", JOB.overrides, {"cgan.sweep.job": "1"}))
    said = LOG.with_name("sweep-trial-1.log").read_text()
    assert "train: process" in said, "a result of the cache is another run's"
    assert "Stage 'evaluate' is cached" in said
    # What wrote into a checkout when it was to go is gone when the next job begins.
    assert not Path(".cgan/checkouts/sweep-trial-0").exists()


def test_a_job_that_fails_is_told_in_its_own_words_and_one_that_is_stopped_is_asked_first(
    here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    with pytest.raises(JobError, match="row 17, column pixel12"):
        here()
    monkeypatch.setenv("SLOW", "train")

    def watch() -> None:
        if "train: step 1" in LOG.read_text():
            raise TrialPruned

    with pytest.raises(TrialPruned):
        here(watch=watch)
    assert "train: saved a checkpoint" in LOG.read_text()


def test_without_optuna_the_extra_is_named() -> None:
    program = (
        "import importlib.util, runpy\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'optuna' else find(name, *rest)\n"
        "runpy.run_module('flows.sweep', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "extra `sweep`" in done.stderr
