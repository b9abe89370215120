"""A line now and then: how far a training is, and how long it still takes."""

import pytest

from cgan.pipeline import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `progress` reads; tests set it."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def lines_of(clock: list[float], steps: range, seconds: float, images: int = 0) -> list[str]:
    """What is said by a progress whose steps take so long."""
    said: list[str] = []
    for _ in progress.progress("judge", steps, images, said.append):
        clock[0] += seconds
    return said


def test_the_first_line_comes_after_five_seconds_and_knows_nothing_of_a_slow_first_step(
    clock: list[float],
) -> None:
    said = lines_of(clock, range(100), 2.5, 64)
    assert said[0] == "judge: step 2 of 100 · 26 images/s · 4 min left"
    assert len(said) == 25 and said[1].startswith("judge: step 6 of 100"), "then every ten"
    assert said[-1] == "judge: step 98 of 100 · 26 images/s · 5 s left"
    said = ["judge: step 1,002 of 1,004 · 12 s left", "judge: step 1,004 of 1,004 · 0 s left"]
    assert lines_of(clock, range(1000, 1004), 6) == said, "a resumed one counts from there"
    assert lines_of(clock, range(9), 0.5) == [], "what is soon done says nothing"
    said = []
    for step in progress.progress("judge", range(1000), 0, said.append):
        clock[0] += 30 if step == 0 else 1
    assert said[0] == "judge: step 2 of 1,000 · 17 min left" and len(said) == 100
