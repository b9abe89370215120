"""How long a training takes on this machine: by a few of its steps, and while it goes on."""

import contextlib
import logging
import statistics
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np

from cgan.images import Images
from cgan.model.hardware import Hardware, wait_for_device
from cgan.params.sections import JudgeParams, TrainParams
from cgan.quality.judge import train_judge
from cgan.text import duration
from cgan.training.loop import train
from cgan.training.state import CPU_PARTS

WARM_UP_STEPS, TIMED_STEPS = 2, 6
MAX_TIMING_S = 10.0
FIRST_LINE_S, LINE_EVERY_S = 5.0, 10.0
# Pixels of an image up to which a whole batch is timed. With larger images fewer are in the timed step, which
# would take many seconds.
MAX_AREA = 64 * 64

log = logging.getLogger(__name__)


def seconds_of_training(data: Images, params: TrainParams) -> float:
    """The seconds that the steps alone take, from a few of them; finds it in less than ten seconds, whatever
    the size of the images."""
    area = data.shape[1] * data.shape[2]
    fitting = params.batch_size * MAX_AREA // max(MAX_AREA, area)
    images_a_part = max(2, fitting // CPU_PARTS)  # batch norm needs two
    batch_size = min(params.batch_size, images_a_part * CPU_PARTS)
    timed = params.model_copy(update={"batch_size": batch_size})
    return timed.total_steps * seconds_a_step(lambda steps: train(data, timed, progress=steps))


def seconds_of_judge(data: Images, recipe: JudgeParams, hardware: Hardware) -> float:
    """The seconds that the steps of a judge's training take."""
    device = hardware.device, hardware.precision
    a_step = seconds_a_step(lambda steps: train_judge(data, recipe, *device, steps))
    return a_step * recipe.total_kimg * 1000 / min(recipe.batch_size, len(data))


class _EnoughTimed(Exception):  # noqa: N818 - no fault
    """Ends a training whose steps have been timed."""


def seconds_a_step(run: Callable[[Callable[[range], Iterator[int]]], object]) -> float:
    """The seconds of a step, by a training that ends after a few. `run` gets what to pass its steps
    through."""
    times: list[float] = []

    def steps(planned: range) -> Iterator[int]:
        for step in planned:
            wait_for_device()
            times.append(time.perf_counter())
            is_slow = len(times) > 2 and times[-1] - times[0] > MAX_TIMING_S
            if is_slow or len(times) > WARM_UP_STEPS + TIMED_STEPS:
                raise _EnoughTimed
            yield step
        wait_for_device()
        times.append(time.perf_counter())

    with contextlib.suppress(_EnoughTimed):
        run(steps)
    durations = np.diff(times).tolist()
    warm = durations[WARM_UP_STEPS:] or durations[1:] or durations  # the first is a slow one
    return statistics.median(warm)


def progress(
    what: str, steps: range, images_a_step: int = 0, say: Callable[[str], None] = log.info
) -> Generator[int, None, None]:
    """Yield the steps; say after five seconds, and then every ten, how far they are, with time left and the
    rate since the last line. The first step counts for neither: it also prepares memory and threads."""
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
            speed = f"{rate * images_a_step:,.0f} images/s · " if images_a_step else ""
            left = duration((steps.stop - step - 1) / rate)
            say(f"{what}: step {step + 1:,} of {steps.stop:,} · {speed}{left} left")
