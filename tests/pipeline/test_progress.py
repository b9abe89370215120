"""A line now and then: how far a training is, and how long it still takes."""

import pytest

from cgan.pipeline import progress


def test_a_line_comes_after_three_seconds_and_then_every_seven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def said(steps: range, seconds: float, images: int = 0, first: float = 0) -> list[str]:
        """Of steps that take so many seconds, the first one perhaps longer."""
        lines = list[str]()
        for step in progress.progress("judge", steps, images, lines.append):
            now[0] += first if first and step == 0 else seconds
        return lines

    lines = said(range(100), 2.5, images=64)
    assert lines[0] == "judge: step 2 of 100 · 26 images/s · 4 min left"
    assert len(lines) == 33 and lines[1].startswith("judge: step 5 of 100")
    assert lines[-1] == "judge: step 98 of 100 · 26 images/s · 5 s left"
    resumed = ["judge: step 1,002 of 1,004 · 12 s left", "judge: step 1,004 of 1,004 · 0 s left"]
    assert said(range(1000, 1004), 6) == resumed, "it counts from there"
    assert said(range(5), 0.5) == [], "what is soon done says nothing"
    lines = said(range(1000), 1, first=30)
    assert lines[0] == "judge: step 2 of 1,000 · 17 min left" and len(lines) == 143
