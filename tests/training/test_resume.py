"""Processes that are killed, stopped, starved of memory and disk: real ones, in a real DVC repository."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT, TINY
from synthetic import make_images, write_csv

from cgan.files import sha256_of

STEPS = 120
TRAIN = {
    **TINY["train"],
    "total_kimg": STEPS * TINY["train"]["batch_size"] / 1000,
    "log_every": 10,
    "save_every": 20,
}
JUDGE = {**TINY["train_judge"], "total_kimg": 0.08}
RESULTS = (
    "models/generator.safetensors",
    "models/discriminator.safetensors",
    "reports/losses.csv",
    "reports/probes.csv",
)
STAGE = (sys.executable, "-m", "cgan.stages.train")
REPRO = (sys.executable, "-m", "dvc", "repro", "train")
DATA = "data/processed/train.safetensors"


def run(project: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run to the end; stdout holds stderr too."""
    done = subprocess.run(
        command,
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def environment() -> dict[str, str]:
    """`python` is this one, and finds the project's own copy of the package in its working directory."""
    foreign = ("PYTHONPATH", "DVC_ROOT", "DVC_EXP_NAME")
    kept = {k: v for k, v in os.environ.items() if k not in foreign and "MLFLOW" not in k}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextlib.contextmanager
def running(project: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, as a terminal starts it; its words go to `words.log`."""
    with (project / "words.log").open("a") as words:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment(),
            stdout=words,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def words(project: Path) -> str:
    return (project / "words.log").read_text()


def until(true: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until it is true; the process must be alive till then."""
    end = time.monotonic() + 60
    while not true():
        assert process is None or process.poll() is None, "ended too early"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def checkpoints(project: Path) -> list[Path]:
    return sorted(project.glob(".cgan/runs/*/step-*.safetensors"))


def results(project: Path) -> dict[str, str]:
    previews = sorted(project.glob("samples/previews/*"))
    files = [*(project / name for name in RESULTS), *previews]
    return {str(path.relative_to(project)): sha256_of(path) for path in files}


def rows(project: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as store:
        return store.execute(query).fetchall()


def statuses(project: Path) -> list[str]:
    return [status for (status,) in rows(project, "select status from runs")]


def assert_one_training(project: Path, uninterrupted: dict[str, str]) -> None:
    """The bytes of one that nobody disturbed, one finished run that the project points to, each record
    of it once, and DVC with nothing left to do."""
    assert results(project) == uninterrupted
    ((run_id, status),) = rows(project, "select run_uuid, status from runs")
    assert status == "FINISHED"
    assert json.loads((project / "models/mlflow_run.json").read_text())["run_id"] == run_id
    steps = [s for (s,) in rows(project, "select step from metrics where key = 'loss/generator'")]
    assert sorted(steps) == list(range(10, STEPS + 1, 10))
    again = rows(project, "select key, step from metrics group by key, step having count(*) > 1")
    assert not again
    assert "didn't change" in run(project, *REPRO).stdout


def repository(project: Path, stages: Iterable[str], changes: dict[str, dict[str, Any]]) -> None:
    """Make a DVC repository there with the pipeline's own code, these stages and params."""
    for package in ("cgan", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, project / package, ignore=ignored)
    shutil.copytree(ROOT / "presets", project / "presets")
    write_csv(project / "inbox/digits.csv", *make_images())
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in {**TINY, **changes}.items():
        params[section] |= values
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    known = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {n: known[n] for n in stages}}))
    run(project, "git", "init", "--quiet", ".")
    run(project, sys.executable, "-m", "dvc", "init", "--quiet")
    for name in (".dvc/config", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project / name)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Reproduced up to the training."""
    project = tmp_path_factory.mktemp("template")
    stages = ("params", "download", "validate", "preprocess", "train_judge", "train")
    repository(project, stages, {"train": TRAIN, "train_judge": JUDGE})
    run(project, *REPRO[:-1], "train_judge")
    shutil.copyfile(empty_store, project / "mlflow.db")
    return project


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repo", symlinks=True))


@pytest.fixture(scope="module")
def uninterrupted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of a training that nobody disturbs."""
    project = tmp_path_factory.mktemp("uninterrupted") / "repo"
    shutil.copytree(template, project, symlinks=True)
    run(project, *STAGE)
    return results(project)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_f46_f47_a_signal_and_more_of_them_during_the_save_leave_a_checkpoint_that_resumes(
    repo: Path, uninterrupted: dict[str, str], number: signal.Signals
) -> None:
    with running(repo, *STAGE) as training:
        until(lambda: checkpoints(repo), training)
        while training.poll() is None:  # every millisecond: some fall into the save
            training.send_signal(number)
            time.sleep(0.001)
    assert training.returncode == 128 + number
    assert "the checkpoint is saved" in words(repo)
    assert "Traceback" not in words(repo)
    # On a busy machine something waits.
    run(repo, sys.executable, "-m", "cgan.cli", "track", "flush")
    assert statuses(repo) == ["KILLED"]
    assert not list(repo.glob(".cgan/runs/*/.*.tmp"))

    resumed = run(repo, *STAGE).stdout

    assert "Resuming at step" in resumed
    assert results(repo) == uninterrupted
    assert statuses(repo) == ["FINISHED"]


KILLED_AT = """
import importlib, os, signal, sys
from cgan.stages import runner, train

owner, name = importlib.import_module(sys.argv[1]), sys.argv[2]
plain = getattr(owner, name)

def dying(*args, **kwargs):
    plain(*args, **kwargs)
    if not str(args[:1]).endswith("/run.json'),)"):  # of the run's folder, at its begin
        os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
runner.run_stage(train.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    ["stages.train write_outputs", "tracking.runs write_json", "stages.runner _refuse_changes"],
)
def test_f48_killed_at_any_point_of_its_end_or_before_dvc_lock_a_training_is_one_run_not_trained_again(
    repo: Path, uninterrupted: dict[str, str], point: str
) -> None:
    with running(repo, sys.executable, "-c", KILLED_AT, *f"cgan.{point}".split()) as training:
        assert training.wait(120) == -signal.SIGKILL
    assert f"Resuming at step {STEPS} of {STEPS}" in run(repo, *REPRO).stdout
    assert_one_training(repo, uninterrupted)


@pytest.mark.slow
def test_f55_a_place_for_results_that_cannot_be_written_is_refused_before_training(
    repo: Path,
) -> None:
    (repo / "samples").write_text("a file where a folder should be")
    done = run(repo, *STAGE, check=False)
    assert done.returncode == 1
    assert "Error: samples: cannot be used" in done.stdout
    assert not (repo / ".cgan/runs").exists()


def cached(project: Path) -> dict[Path, str]:
    """The objects of DVC's cache."""
    files = (project / ".dvc/cache/files").rglob("*")
    return {path: sha256_of(path) for path in files if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_f57_an_output_that_dvc_linked_from_its_cache_is_never_written_through(
    repo: Path, link: str
) -> None:
    run(repo, sys.executable, "-m", "dvc", "config", "cache.type", link)
    run(repo, sys.executable, "-m", "dvc", "checkout", "--relink", "train_judge", "--with-deps")
    before = cached(repo)
    output = repo / DATA
    (original,) = filter(output.samefile, before)
    params = (repo / "params.yaml").read_text()
    (repo / "params.yaml").write_text(
        params.replace("holdout_fraction: 0.25", "holdout_fraction: 0.5")
    )
    run(repo, sys.executable, "-m", "cgan.stages.preprocess")
    assert sha256_of(output) != before[original]
    assert cached(repo) == before


@pytest.mark.slow
def test_f59_f71_f82_a_training_left_over_by_a_killed_dvc_is_waited_for_and_nothing_trained_again(
    repo: Path, uninterrupted: dict[str, str]
) -> None:
    with running(repo, *REPRO) as dvc:
        until(lambda: checkpoints(repo), dvc)
        stage = next(
            p for p in psutil.Process(dvc.pid).children(True) if "train" in p.cmdline()[-1]
        )
        stage.suspend()  # so that it is there when the next one comes
        dvc.kill()
        dvc.wait()
        with running(repo, *REPRO) as second:
            until(lambda: "Another training runs here" in words(repo), second)
            assert f"process {stage.pid}" in words(repo)
            stage.resume()
            assert second.wait(60) == 0, words(repo)
    assert f"Resuming at step {STEPS} of {STEPS}" in words(repo)
    assert_one_training(repo, uninterrupted)
    # DVC knows the result now: who asks for a training all the same gets one, and a run of its own.
    assert "Resuming" not in run(repo, *REPRO, "--force").stdout
    assert results(repo) == uninterrupted
    assert statuses(repo) == ["FINISHED", "FINISHED"]
