"""What is put right, or told, before DVC starts."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from cgan.errors import CganError
from cgan.stages.runner import _in_words
from flows.dvc import BROKEN_LOCK, LOCK_COPY, check_repository

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
    check_repository(said.append)
    return said


def test_f84_without_git_the_way_out_is_told_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("init", "no_scm"):
        folder = tmp_path / name
        shutil.copytree(
            ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp")
        )
        monkeypatch.chdir(folder)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        for variable in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{variable}_NAME", "t")
            monkeypatch.setenv(f"GIT_{variable}_EMAIL", "t@t")
        Path("dvc.yaml").write_text(PIPELINE)
        with pytest.raises(
            CganError, match="not in a git repository, and DVC expects one"
        ) as refused:
            checked()
        git_way, dvc_way = str(refused.value).split("`")[1:5:2]
        commands = git_way.split(" && ") if name == "init" else [dvc_way]
        for command in commands:
            run(*shlex.split(command.replace("dvc ", f"{sys.executable} -m dvc ", 1)))
        assert checked() == []
        dvc("repro")
        assert Path("out.txt").read_text() == "hello\n"


def test_f84_make_repro_says_it_before_dvc_does(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }
    command = [sys.executable, "-m", "flows.dvc"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and "git init" in done.stderr
    assert "Traceback" not in done.stderr
    recipe = (ROOT / "Makefile").read_text().partition("\nrepro:")[2].splitlines()[1:3]
    assert [line.strip("\t@") for line in recipe] == ["python -m flows.dvc", "dvc repro"]


def damaged(content: str) -> list[str]:
    """As a kill leaves it: cut off at the start, in the middle, behind the schema, and plain nonsense."""
    return [
        "",
        content[: content.index("cmd")],
        content[: content.index("stages")],
        "\0" * 40,
        "- a\n",
    ]


@pytest.mark.parametrize(
    "way", [0, 1, *(pytest.param(way, marks=pytest.mark.slow) for way in (2, 3, 4))]
)
def test_f90_a_damaged_dvc_lock_is_put_back_from_the_copy_then_from_git_then_removed(
    repo: Path, way: int
) -> None:
    whole = Path("dvc.lock").read_text()
    assert checked() == []
    bad = damaged(whole)[way]

    newer = whole.replace("greet", "greet_again")
    LOCK_COPY.parent.mkdir()
    LOCK_COPY.write_text(newer)
    Path("dvc.lock").write_text(bad)
    (said,) = checked()
    assert "its last good copy again" in said
    assert Path("dvc.lock").read_text() == newer
    assert BROKEN_LOCK.read_text() == bad

    LOCK_COPY.write_text(bad)
    Path("dvc.lock").write_text(bad)
    (said,) = checked()
    assert "git's again" in said
    assert Path("dvc.lock").read_text() == whole
    assert "didn't change" in dvc("repro")

    run("git", "rm", "--quiet", "--force", "--cached", "dvc.lock")
    run(*GIT, "commit", "--quiet", "--message", "without")
    Path("dvc.lock").write_text(bad)
    (said,) = checked()
    assert "it is removed" in said
    dvc("repro")
    assert Path("dvc.lock").read_text() == whole
    assert checked() == []


def test_f90_a_merge_conflict_in_dvc_lock_is_told_and_left_to_its_owner(repo: Path) -> None:
    conflict = "<<<<<<< HEAD\n" + Path("dvc.lock").read_text() + "=======\n>>>>>>> other\n"
    Path("dvc.lock").write_text(conflict)
    with pytest.raises(CganError, match="markers of a merge conflict"):
        checked()
    assert Path("dvc.lock").read_text() == conflict


def test_f90_without_a_dvc_lock_there_is_nothing_to_put_back(repo: Path) -> None:
    Path("dvc.lock").unlink()
    assert checked() == []
    assert not Path("dvc.lock").exists()


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
