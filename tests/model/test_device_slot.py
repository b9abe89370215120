"""One training a device: who holds a slot, who waits, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from cgan.model import device_slot
from cgan.model.device_slot import first_free

HOLDER = """
import sys, time
from cgan.model.device_slot import first_free
with first_free(["one", "two"]) as place:
    print(place, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        )

    return begin


def taken(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_device_is_one_training_s_and_free_when_that_is_killed(
    start: Callable[[], subprocess.Popen[str]],
) -> None:
    holders = [start()]
    assert taken(holders[0]) == "0"
    holders.append(start())
    assert taken(holders[1]) == "1"
    third = start()
    try:
        time.sleep(3)
        os.kill(holders[1].pid, signal.SIGKILL)
        assert taken(third) == "1"
    finally:
        for process in (*holders, third):
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def test_who_waits_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_slot.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device_slot, "LOOK_EVERY_S", 0)
    caplog.set_level("INFO")
    answers = iter([None, None, 0])
    monkeypatch.setattr(device_slot, "_try_each", lambda _: next(answers))
    with device_slot.first_free(["one"]) as place:
        assert place == 0
    assert [record.message for record in caplog.records] == [
        "Each CUDA device has a training (1 here): waiting for one."
    ]


def test_a_slot_is_readable_by_other_users_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_slot.tempfile, "gettempdir", lambda: str(tmp_path))
    before = os.umask(0o077)
    try:
        with first_free(["one"]), first_free(["one", "two"]) as place:
            assert place == 1
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o644}


def test_a_training_on_the_cpu_takes_no_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_slot.tempfile, "gettempdir", lambda: str(tmp_path))
    with device_slot.device_slot(torch.device("cpu")):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_training_on_cuda_holds_its_device() -> None:
    with device_slot.device_slot(torch.device("cuda")):
        name = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        path = Path(device_slot.tempfile.gettempdir()) / f"cgan-device-{name}.lock"
        assert device_slot._try_each([device_slot._open(path)]) is None


def test_a_training_of_several_processes_holds_a_slot_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_slot.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: number)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with device_slot.device_slot(torch.device("cuda", 0), 3), first_free(list("0123")) as place:
        assert place == 3, "the first that is free"
    assert chosen == [0]
    with first_free(list("0123")) as place:
        assert place == 0
