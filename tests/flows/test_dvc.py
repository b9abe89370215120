"""What a killed DVC left, as a stage in a flow finds it."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cgan.stages.runner import _in_words
from flows.dvc import Outcome, StageError, forget_dead_holders, repro_stage

PIPELINE = "stages:\n  greet:\n    cmd: echo hello > out.txt\n    outs: [out.txt]\n"
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(*arguments: str) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("git", "init", "--quiet", ".")
        dvc("init", "--quiet")
        Path("dvc.yaml").write_text(PIPELINE)
        dvc("repro", "--quiet")
        run("git", "add", ".")
        run(*GIT, "commit", "--quiet", "--message", "start")
    return folder


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repo"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_f54_the_advice_on_a_full_disk_keeps_the_results_of_experiments(repo: Path) -> None:
    Path("params.yaml").write_text("x: 1")
    Path("dvc.yaml").write_text(PIPELINE.replace("hello", "${x}"))
    dvc("repro", "--quiet")
    run("git", "add", ".")
    run(*GIT, "commit", "--quiet", "--message", "a param")
    dvc("exp", "run", "--quiet", "--name", "second", "--set-param", "x=2")
    run("git", "reset", "--quiet", "--hard")
    dvc("checkout", "--quiet")
    advice = re.search("`dvc (gc [^`]*)`", _in_words(OSError(errno.ENOSPC, "full", "file")))
    assert advice
    dvc(*advice[1].split(), "--force")
    dvc("exp", "apply", "second")
    assert Path("out.txt").read_text() == "2\n"


def checked() -> list[str]:
    said: list[str] = []
    forget_dead_holders(said.append)
    return said


@pytest.mark.parametrize("damage", ["", "<<<<<<< HEAD\n", "- a\n"])
def test_f90_a_dvc_lock_that_dvc_cannot_read_is_told_with_the_command_that_helps(
    repo: Path, damage: str
) -> None:
    whole = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(damage + whole if "<" in damage else damage)
    with pytest.raises(StageError, match=r"`git checkout dvc\.lock`") as refused:
        repro_stage("greet", print)
    run(*shlex.split(str(refused.value).split("`")[1]))
    assert repro_stage("greet", print) == Outcome.UNCHANGED


def test_f96_files_that_a_dead_process_holds_are_free_again(repo: Path) -> None:
    """DVC's list of files in use, with the number of a killed process whose parent has not asked for it."""
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(exist_ok=True)

    def held_by(*pids: int) -> None:
        out = str(Path("out.txt").resolve())
        holders = [{"pid": pid, "cmd": "dvc repro"} for pid in pids]
        lock.write_text(json.dumps({"write": {out: holders[0]}, "read": {out + "x": holders[1:]}}))

    with subprocess.Popen(["sleep", "60"]) as dead, subprocess.Popen(["sleep", "60"]) as living:
        dead.kill()
        while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        held_by(dead.pid, living.pid)
        assert checked() == [] and lock.exists(), "one of them may still write"
        held_by(dead.pid)
        refused = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--force"], capture_output=True
        )
        assert b"is busy, it is being blocked by" in refused.stderr
        (said,) = checked()
        assert f"process {dead.pid}) is dead" in said and not lock.exists()
        dvc("repro", "--force")
        living.kill()
