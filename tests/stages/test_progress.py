"""Progress of what takes long: lines in a pipe, a bar on a terminal, and the work as it would be without."""

from __future__ import annotations

import os
import pty
import threading

import pytest

from cgan.stages import runner


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the runner reads; tests set it."""
    now = [0.0]
    monkeypatch.setattr(runner.time, "perf_counter", lambda: now[0])
    return now


def lines_of(clock: list[float], steps: range, seconds: float, images: int = 0) -> list[str]:
    """What is said by a progress whose steps take so long."""
    said: list[str] = []
    for _ in runner.progress("judge", steps, images, said.append):
        clock[0] += seconds
    return said


def test_a_pipe_gets_a_line_every_ten_seconds_with_rate_and_time_left(clock: list[float]) -> None:
    said = lines_of(clock, range(100), 2.5, 64)
    assert len(said) == 25
    assert said[0] == "judge: step 4 of 100 · 26 images/s · 4 min left"
    assert said[-4] == "judge: step 88 of 100 · 26 images/s · 30 s left"
    assert said[-1] == "judge: step 100 of 100 · 26 images/s · 0 s left"


def test_the_rate_is_of_the_last_seconds(clock: list[float]) -> None:
    said: list[str] = []
    for step in runner.progress("judge", range(20), 10, said.append):
        clock[0] += 10 if step < 10 else 5
    assert "step 10 of 20 · 1 images/s · 2 min left" in said[9]
    assert "step 12 of 20 · 2 images/s · 40 s left" in said[10]


def test_steps_that_are_no_images_have_no_rate_and_a_resumed_one_counts_from_there(
    clock: list[float],
) -> None:
    assert lines_of(clock, range(1000, 1006), 6) == [
        "judge: step 1,002 of 1,006 · 24 s left",
        "judge: step 1,004 of 1,006 · 12 s left",
        "judge: step 1,006 of 1,006 · 0 s left",
    ]
    assert lines_of(clock, range(9), 1) == [], "what is soon done says nothing"


@pytest.mark.parametrize("what", ["judge", "training"])
def test_a_terminal_gets_a_bar_and_only_that_of_a_training_stays(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    ours, its = pty.openpty()
    found: list[bytes] = []

    def read() -> None:
        while not b"".join(found).endswith(b"END\r\n"):
            found.append(os.read(ours, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    said: list[str] = []
    with os.fdopen(its, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        assert list(runner.progress(what, range(7), 10, said.append)) == list(range(7))
        terminal.write("END\n")
        terminal.flush()
        reader.join(30)
    os.close(ours)
    shown = b"".join(found).decode()
    assert "step 7 of 7 ·" in shown and what in shown and "left" in shown
    erased = "\x1b[2K" in shown[shown.rindex("step 7 of 7") :]
    assert erased == (what != "training")
    assert not said
