"""What takes long says how far it is, and does its work as it would without."""

from __future__ import annotations

import pytest

from cgan.stages import runner


@pytest.mark.parametrize(
    ("steps", "seconds", "images", "lines"),
    [
        (
            range(8),
            5.0,
            64,
            [
                "judge: step 2 of 8 · 13 images/s · 30 s left",
                "judge: step 4 of 8 · 13 images/s · 20 s left",
                "judge: step 6 of 8 · 13 images/s · 10 s left",
                "judge: step 8 of 8 · 13 images/s · 0 s left",
            ],
        ),
        (
            range(1000, 1004),  # resumed, and its steps are no images
            60.0,
            0,
            [f"judge: step {n:,} of 1,004 · {1004 - n} min left" for n in range(1001, 1003)]
            + ["judge: step 1,003 of 1,004 · 60 s left", "judge: step 1,004 of 1,004 · 0 s left"],
        ),
        (range(9), 1.0, 0, []),
    ],
)
def test_a_line_every_ten_seconds_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, steps: range, seconds: float, images: int, lines: list[str]
) -> None:
    now, said, done = 0.0, list[str](), list[int]()
    monkeypatch.setattr(runner.time, "perf_counter", lambda: now)
    for step in runner.progress("judge", steps, images, said.append):
        now += seconds
        done.append(step)
    assert (said, done) == (lines, list(steps))
