"""Lines now and then: how far something is, and how long it still takes."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator

from cgan.base.text import duration

FIRST_LINE_S, LINE_EVERY_S = 3.0, 7.0  # together ten: where one work ends, another begins

log = logging.getLogger(__name__)


def progress(
    what: str, steps: range, images_per_step: int = 0, say: Callable[[str], None] = log.info
) -> Generator[int, None, None]:
    """Yield the steps; say after three seconds, and then every seven, how far they are, with time left and
    the rate since the last line. The first step counts for neither: it also prepares memory and threads."""
    last_step, last_at = steps.start, time.perf_counter()
    due = last_at + FIRST_LINE_S
    for step in steps:
        yield step
        now = time.perf_counter()
        if step == steps.start:
            last_step, last_at = step + 1, now
        elif now >= due:
            rate = (step + 1 - last_step) / (now - last_at)
            last_step, last_at, due = step + 1, now, now + LINE_EVERY_S
            speed = f"{rate * images_per_step:,.0f} images/s · " if images_per_step else ""
            left = duration((steps.stop - step - 1) / rate)
            say(f"{what}: step {step + 1:,} of {steps.stop:,} · {speed}{left} left")


@contextlib.contextmanager
def lines_until_done(what: str, about_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is done now and about how long it takes; then every seven seconds for how long it has been."""
    say(f"{what}: about {duration(about_s)} …")
    began, done = time.perf_counter(), threading.Event()

    def count() -> None:
        while not done.wait(LINE_EVERY_S):
            say(f"… {duration(time.perf_counter() - began)} of about {duration(about_s)}")

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
