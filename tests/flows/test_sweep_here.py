"""Jobs on this machine: real processes and checkouts, with stages of a moment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from toy_project import repo, template  # noqa: F401

from flows.sweep.here import Here
from flows.sweep.jobs import Job, Seen, State, was_killed

JOB = Job("sweep-trial-0", {"train.lr": 0.002}, {"cgan.sweep.job": "sweep-trial-0"})


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:  # noqa: F811
    shutil.rmtree(repo / "cgan")  # the toy's; checkouts have it from git
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    place = Here(repo, commit)
    yield place
    for process in place._processes.values():
        process.kill()
        process.wait()


def end_of(place: Here, job: Job) -> Seen:
    deadline = time.monotonic() + 100
    while (seen := place.look(job)).state is State.RUNNING:
        assert time.monotonic() < deadline, place._log(job).read_text()
        time.sleep(0.05)
    return seen


def wait_for(place: Here, words: str) -> None:
    deadline = time.monotonic() + 100
    while words not in (place._log(JOB).read_text() if place._log(JOB).exists() else ""):
        assert time.monotonic() < deadline, place._log(JOB).read_text()
        time.sleep(0.05)


def attempts(place: Here) -> list[str]:
    """The stages whose command started."""
    return re.findall(r"^(\w+): process", place._log(JOB).read_text(), re.MULTILINE)


def test_a_job_runs_in_a_checkout_of_its_own_with_its_params(here: Here) -> None:
    here.start(JOB, 1)
    assert end_of(here, JOB) == Seen(State.DONE)
    assert attempts(here) == ["download", "train", "evaluate"]
    assert "lr: 0.002 " not in (here.base / "params.yaml").read_text()
    assert not (here.base / "reports").exists() and not (here.base / "models").exists()
    assert not list((here.base / ".cgan/checkouts").glob("*/"))
    again = Job("sweep-trial-1", JOB.overrides, {"cgan.sweep.job": "sweep-trial-1"})
    here.start(again, 1)
    assert end_of(here, again) == Seen(State.DONE)
    said = here._log(again).read_text()
    assert "train: ran" in said, "a result of the cache is another run's"
    assert "evaluate: restored from cache" in said


def test_a_stage_that_fails_is_told_in_its_own_words(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    here.start(JOB, 1)
    seen = end_of(here, JOB)
    assert seen.state is State.FAILED
    assert "row 17, column pixel12" in seen.words


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_where_it_was(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    here.start(JOB, 1)
    wait_for(here, "train: step 1")
    here._processes[JOB.name].kill()
    assert end_of(here, JOB).state is State.GONE
    monkeypatch.delenv("SLOW")
    here.start(JOB, 2)
    assert end_of(here, JOB) == Seen(State.DONE)
    assert attempts(here) == ["download", "train", "train", "evaluate"]


@pytest.mark.parametrize(
    "shell", ["/bin/sh", "/bin/bash"]
)  # DVC's; dash and bash tell a signal differently
def test_a_stage_that_a_signal_ended_is_worth_another_attempt(
    here: Here, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    monkeypatch.setenv("SHELL", shell)
    monkeypatch.setenv("SLOW", "train")
    here.start(JOB, 1)
    wait_for(here, "train: step 1")
    for process in psutil.Process(here._processes[JOB.name].pid).children(recursive=True):
        if "toy.py" in process.cmdline():
            process.kill()
    assert end_of(here, JOB).state is State.GONE


def test_a_job_that_is_stopped_has_ended_and_its_training_was_asked_first(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    here.start(JOB, 1)
    wait_for(here, "train: step 1")
    here.stop(JOB)
    assert "train: saved a checkpoint" in here._log(JOB).read_text()
    assert not working_in(here.base)


@pytest.mark.slow
def test_jobs_end_with_a_driver_that_is_killed_and_the_next_waits_for_them(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flows.sweep.here import Here\n"
        "from flows.sweep.jobs import Job\n"
        f"place = Here(Path({str(here.base)!r}), {here.commit!r})\n"
        f"place.start({JOB!r}, 1)\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ))
    wait_for(here, "train: step 1")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    here.stop(JOB)
    assert not working_in(here.base)
    monkeypatch.delenv("SLOW")
    here.start(JOB, 1)
    assert end_of(here, JOB) == Seen(State.DONE)
    assert attempts(here) == ["download", "train", "train", "evaluate"]


def test_a_job_whose_driver_died_while_it_was_starting_ends(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "from flows.sweep.here import Here\n"
        "from flows.sweep.jobs import Job\n"
        f"place = Here(Path({str(here.base)!r}), {here.commit!r})\n"
        f"place.start({JOB!r}, 1)\n"
        "print(place._processes.popitem()[1].pid, flush=True)\n"
        "os._exit(0)\n"
    )
    job = psutil.Process(int(subprocess.check_output([sys.executable, "-c", program])))
    assert psutil.wait_procs([job], timeout=20)[1] == []


def working_in(folder: Path) -> list[psutil.Process]:
    """Trainings there that live."""
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline", "status"])
        if str(process.info["cwd"] or "").startswith(str(folder))
        and "toy.py" in (process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize(
    ("words", "killed"),
    [
        ("failed to run: python -m cgan.stages.train, exited with -9", True),
        ("failed to run: python -m cgan.stages.train, exited with 137", True),
        ("failed to run: python -m cgan.stages.train, exited with 143", True),
        ("ended with exit code 137:", True),
        ("Error: row 17: 256 is outside 0–255.", False),
        ("failed to run: python -m cgan.stages.train, exited with 1", False),
    ],
)
def test_a_failure_by_a_signal_is_known_by_its_words(words: str, killed: bool) -> None:
    assert was_killed(words) == killed
