"""`train.processes`: real processes that share out the parts of a batch, beside parts on threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import ROOT
from test_training import CPU, DATA, StopAfter, digest, params_of, straight

from cgan.errors import ParamsError, TrainingError
from cgan.model.hardware import Hardware, choose_hardware
from cgan.training import processes
from cgan.training.loop import Diverged, Interrupted, train


@pytest.mark.parametrize(
    ("first", "then", "changes"),
    [
        (2, 1, {}),
        pytest.param(1, 2, {"updates": "two_passes", "max_shift": 2}, marks=pytest.mark.slow),
        pytest.param(2, 4, {"updates": "in_turn", "cpu_parts": 4}, marks=pytest.mark.slow),
        pytest.param(2, 1, {"optimizer": "adadelta", "lr": 1.0}, marks=pytest.mark.slow),
        pytest.param(
            2, 2, {"precision": "bfloat16", "gradient_clip": 0.01}, marks=pytest.mark.slow
        ),
    ],
)
def test_in_any_number_of_processes_a_training_and_its_resume_have_the_bits_of_parts_on_threads(
    first: int, then: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match="stopped at step 5 of 10; the checkpoint is saved"):
        train(
            DATA,
            params_of(processes=first, **changes),
            folder=tmp_path,
            stopping=StopAfter(5),
        )
    assert not multiprocessing.active_children()

    resumed = train(DATA, params_of(processes=then, **changes), folder=tmp_path)

    assert resumed.resumed_from == 5
    assert digest(resumed) == straight(params_of(**changes))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_ends_the_training_in_words_within_seconds(tmp_path: Path) -> None:
    killed_at = 0.0

    def kill_at_step_6(steps: range) -> Iterator[int]:
        nonlocal killed_at
        for step in steps:
            if step == 6:
                (other,) = multiprocessing.active_children()
                other.kill()
                killed_at = time.monotonic()
            yield step

    with pytest.raises(TrainingError) as caught:
        train(DATA, params_of(processes=2), folder=tmp_path, progress=kill_at_step_6)
    assert time.monotonic() - killed_at < processes.NOTICED_S
    assert str(caught.value) == (
        "process 2 of 2 was killed by SIGKILL. Start the training again: it goes on from its checkpoint."
    )
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()

    assert digest(train(DATA, params_of(), folder=tmp_path)) == straight(params_of())


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_all_processes_as_it_ends_one() -> None:
    words = []
    for count in (1, 2):
        with pytest.raises(Diverged) as caught:
            train(DATA, params_of(processes=count, lr=1e30))
        words.append(str(caught.value))
        assert not multiprocessing.active_children()
    assert words[0] == words[1]


# -- Deaths of whole programs -----------------------------------------------------------------------

DEATH = "process 2 of 3 was killed by SIGKILL. Start the training again: it goes on from its checkpoint."
PROGRAM = """
import os, sys, time
sys.path[:0] = {paths!r}

def endless(steps):
    for step in steps:
        if step == 3:
            sys.stdout.write("training\\n")
            sys.stdout.flush()
            time.sleep(float(os.environ.get("BUSY_S", 0)))
        yield step

if __name__ == "__main__":
    from test_training import CPU, DATA, params_of
    from cgan.training import processes
    from cgan.training.loop import train
    processes.NOTICED_S = 1.0
    train(DATA, params_of(processes=3, cpu_parts=6, batch_size=24, total_kimg=1e5), progress=endless)
elif os.environ.get("SLOW_TO_START"):
    time.sleep(600)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Popen]:
    """A training of three processes without an end."""
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/training")]
    (tmp_path / "program.py").write_text(PROGRAM.format(paths=paths))
    process = psutil.Popen(
        [sys.executable, tmp_path / "program.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def followers_of(process: psutil.Process) -> list[psutil.Process]:
    return [p for p in process.children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_no_process_outlives_a_leader_that_is_killed(program: psutil.Popen) -> None:
    assert program.stdout.readline() == "training\n"
    others = followers_of(program)
    assert len(others) == 2
    program.kill()
    _, alive = psutil.wait_procs(others, 10)
    assert not alive


@pytest.fixture
def slow_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW_TO_START", "1")


@pytest.mark.slow
def test_a_process_that_dies_before_it_has_joined_ends_the_others(
    slow_to_start: None, program: psutil.Popen
) -> None:
    end = time.monotonic() + 60
    while len(others := followers_of(program)) < 2:
        assert time.monotonic() < end and program.poll() is None
        time.sleep(0.05)
    others[0].kill()
    _, words = program.communicate(timeout=30)
    assert words.splitlines()[-1].endswith(f"TrainingError: {DEATH}")
    _, alive = psutil.wait_procs(others, 10)
    assert not alive


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSY_S", "600")


@pytest.mark.slow
def test_a_leader_that_waits_for_something_else_is_ended_when_a_process_dies(
    busy: None, program: psutil.Popen
) -> None:
    """As one that waits for a CUDA device would be, whose kernel waits for the dead process's."""
    assert program.stdout.readline() == "training\n"
    others = followers_of(program)
    others[0].kill()
    _, words = program.communicate(timeout=30)
    assert program.returncode == 1
    assert words == f"Error: {DEATH}\n"
    _, alive = psutil.wait_procs(others, 10)
    assert not alive


@pytest.mark.slow
def test_what_a_process_cannot_do_is_told_by_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    save = processes.save_tensors
    monkeypatch.setattr(
        processes, "save_tensors", lambda path, *more: save(path.with_name("x"), *more)
    )
    with pytest.raises(
        TrainingError, match=r"process 2 of 2 ended: ModelError\('.*start: not found"
    ):
        train(DATA, params_of(processes=2))


# -- Hardware ---------------------------------------------------------------------------------------


def test_each_process_has_a_cuda_device_of_its_own_and_more_than_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = [choose_hardware("auto", "float32", 2, rank).device for rank in (0, 1)]
    assert devices == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert choose_hardware("auto", "float32").device == torch.device("cuda")
    assert choose_hardware("cpu", "float32", 4, 3) == Hardware(CPU.device, CPU.precision, 3)
    with pytest.raises(
        ParamsError, match=r"`train.processes` is 4, and torch finds 2 CUDA devices"
    ):
        choose_hardware("auto", "float32", 4)
