"""Progress of a training: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0


def progress(steps: range, images_a_step: int) -> Iterator[int]:
    """Yield the steps. The rate is of the last seconds, not of the whole training."""
    return _bar(steps, images_a_step) if sys.stdout.isatty() else _lines(steps, images_a_step)


def _lines(steps: range, images_a_step: int) -> Iterator[int]:
    shown, shown_at = steps.start, time.perf_counter()
    for step in steps:
        yield step
        now = time.perf_counter()
        if now - shown_at >= LINE_EVERY_S:
            rate = (step - shown) / (now - shown_at)
            shown, shown_at = step, now
            log.info(
                "step %s of %s · %s images/s · %s left",
                f"{step + 1:,}",
                f"{steps.stop:,}",
                f"{rate * images_a_step:,.0f}",
                _duration((steps.stop - step - 1) / max(rate, 1e-9)),
            )


def _bar(steps: range, images_a_step: int) -> Iterator[int]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn(
            "step {task.completed:,.0f} of {task.total:,.0f} · {task.fields[rate]} images/s ·"
        ),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, refresh_per_second=2) as bar:
        task = bar.add_task("", total=steps.stop, completed=steps.start, rate="…")
        for step in steps:
            yield step
            speed = bar.tasks[task].speed
            rate = f"{speed * images_a_step:,.0f}" if speed else "…"
            bar.update(task, completed=step + 1, rate=rate)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
