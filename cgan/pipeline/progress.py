"""How long a training takes on this machine: by a few of its steps, and while it goes on."""

import contextlib
import logging
import statistics
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np

from cgan.images import Images
from cgan.model.hardware import wait_for_device
from cgan.params.sections import TrainParams
from cgan.text import duration
from cgan.training.loop import train

WARM, TIMED, MOST_S = 2, 6, 10.0  # steps; seconds
FIRST_LINE_S, LINE_EVERY_S = 5.0, 10.0
PIXELS = 64 * 64  # of an image; with larger ones fewer are in a step, which would take many seconds

log = logging.getLogger(__name__)


def seconds_of_training(data: Images, params: TrainParams) -> float:
    """The seconds that the steps alone take. It takes less than ten seconds, whatever the size of the
    images."""
    parts, area = params.cpu_parts, data.shape[1] * data.shape[2]
    batch = max(1, params.batch_size * PIXELS // max(PIXELS, area) // parts) * parts
    batch = min(params.batch_size, max(batch, 2 * parts))  # batch norm needs two
    quick = params.model_copy(update={"batch_size": batch})
    return quick.total_steps * seconds_a_step(lambda steps: train(data, quick, progress=steps))


class _Enough(Exception):  # noqa: N818 - no fault: enough steps were timed
    pass


def seconds_a_step(run: Callable[[Callable[[range], Iterator[int]]], object]) -> float:
    """The seconds of a step, by a training that ends after a few. `run` gets what to pass its steps
    through."""
    times: list[float] = []

    def steps(planned: range) -> Iterator[int]:
        for step in planned:
            wait_for_device()
            times.append(time.perf_counter())
            slow = len(times) > 2 and times[-1] - times[0] > MOST_S
            if slow or len(times) > WARM + TIMED:
                raise _Enough
            yield step
        wait_for_device()
        times.append(time.perf_counter())

    with contextlib.suppress(_Enough):
        run(steps)
    passed = np.diff(times).tolist()
    return statistics.median(passed[WARM:] or passed[1:] or passed)  # the first is a slow one


def progress(
    what: str, steps: range, images_a_step: int = 0, say: Callable[[str], None] = log.info
) -> Generator[int, None, None]:
    """Yield the steps; say after five seconds, and then every ten, how far they are, with time left and the
    rate since then. The first step counts for neither: it also prepares memory and threads."""
    shown, shown_at = steps.start, time.perf_counter()
    due = shown_at + FIRST_LINE_S
    for step in steps:
        yield step
        now, done = time.perf_counter(), step + 1 - shown
        if step == steps.start:
            shown, shown_at = step + 1, now
        elif now >= due:
            rate = done / (now - shown_at)
            shown, shown_at, due = step + 1, now, now + LINE_EVERY_S
            speed = f"{rate * images_a_step:,.0f} images/s · " if images_a_step else ""
            left = duration((steps.stop - step - 1) / rate)
            say(f"{what}: step {step + 1:,} of {steps.stop:,} · {speed}{left} left")
