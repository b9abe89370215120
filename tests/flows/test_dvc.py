"""What DVC says when something is wrong, and our advice, on a real repository."""

from __future__ import annotations

import errno
import re
import shlex
import sys
from pathlib import Path

import pytest
from toy_project import git, repro_stage, run_all
from toy_project import repo as repo
from toy_project import template as template

from cgan.stages.runner import _in_words
from flows.checkout import dvc_in
from flows.dvc import Outcome, StageError


def commit() -> None:
    git(Path.cwd(), "add", ".")
    git(Path.cwd(), "commit", "--quiet", "--message", "results")


@pytest.mark.slow
def test_f54_the_advice_on_a_full_disk_keeps_the_results_of_experiments(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    run_all()
    commit()
    here = Path.cwd()
    dvc_in(here, "exp", "run", "--quiet", "--name", "second", "--set-param", "train.seed=2")
    git(here, "reset", "--quiet", "--hard")
    dvc_in(here, "checkout", "--quiet")
    advice = re.search("`dvc (gc [^`]*)`", _in_words(OSError(errno.ENOSPC, "full", "file")))
    assert advice
    dvc_in(here, *advice[1].split(), "--force")
    dvc_in(here, "exp", "apply", "second")
    assert Path("models/generator.safetensors").is_file()


@pytest.mark.parametrize("damage", ["", "<<<<<<< HEAD\n", "- a\n"])
def test_f90_a_dvc_lock_that_dvc_cannot_read_is_told_with_the_command_that_helps(
    repo: Path, damage: str
) -> None:
    repro_stage("download")
    commit()
    whole = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(damage + whole if "<" in damage else damage)
    with pytest.raises(StageError, match=r"`git checkout dvc\.lock`") as refused:
        repro_stage("download")
    _, *restore = shlex.split(str(refused.value).split("`")[1])
    git(Path.cwd(), *restore)
    assert repro_stage("download") == Outcome.UNCHANGED
