"""Progress of what takes long: a line now and then, and the work as it would be without."""

from __future__ import annotations

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


def test_there_is_a_line_every_ten_seconds_with_time_left_and_the_rate_of_images(
    clock: list[float],
) -> None:
    said = lines_of(clock, range(100), 2.5, 64)
    assert len(said) == 25
    assert said[0] == "judge: step 4 of 100 · 26 images/s · 4 min left"
    assert said[-4] == "judge: step 88 of 100 · 26 images/s · 30 s left"
    assert said[-1] == "judge: step 100 of 100 · 26 images/s · 0 s left"
    said = ["judge: step 1,002 of 1,004 · 12 s left", "judge: step 1,004 of 1,004 · 0 s left"]
    assert lines_of(clock, range(1000, 1004), 6) == said, "a resumed one counts from there"
    assert lines_of(clock, range(9), 1) == [], "what is soon done says nothing"
