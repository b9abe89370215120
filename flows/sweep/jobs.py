"""A job is one training of a sweep, in a checkout of its own; a place is where jobs are done."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

ATTEMPTS = 3  # of a job whose process was killed
POLL_S = 1.0
# What DVC says of a stage that a signal ended, and our guard of a DVC that one ended. Between DVC and
# a stage is a shell: bash becomes the stage, dash stays and turns the signal into 128 plus its number.
KILLED = re.compile(r"exited with (-\d+|1(29|[3-5]\d))\b|ended with exit code 1(37|43)\b")


class State(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # with an error of its own: the same again would fail again
    GONE = "gone"  # killed, or its machine is away: worth another attempt


@dataclass(frozen=True)
class Seen:
    state: State
    words: str = ""


@dataclass(frozen=True)
class Job:
    """`name` is its checkout's name too, and follows from the sweep: whoever starts it again, finds it.

    `stages`: only these of dvc.yaml; None: all. `tags` are of the MLflow run that it makes.
    """

    name: str
    overrides: dict[str, Any]
    tags: dict[str, str]
    stages: list[str] | None = None


class Place(Protocol):
    """Where jobs are done. All calls may be repeated, also by a new driver after the old one was killed."""

    def start(self, job: Job, attempt: int) -> None:
        """Begin, or find what a former driver began as this attempt."""

    def look(self, job: Job) -> Seen: ...

    def stop(self, job: Job) -> None:
        """End it early and wait for its end; a training has written down what it recorded."""


class Attempts(Protocol):
    """How often each job was begun; it outlives the driver."""

    def __call__(self, job: Job) -> int: ...

    def again(self, job: Job) -> int:
        """Count one more → how many there are now."""


def work(
    place: Place,
    upcoming: Iterator[Job],
    parallel: int,
    attempts: Attempts,
    watch: Callable[[Job], bool],
    ended: Callable[[Job, Seen], None],
) -> None:
    """Do all jobs, `parallel` at a time.

    `upcoming` is asked for the next job when there is room for one. `watch` looks at a running job and
    says whether it is to go on; `ended` hears how a job ended, once.
    """
    running: list[Job] = []
    exhausted = False
    while True:
        while not exhausted and len(running) < parallel:
            job = next(upcoming, None)
            if job is None:
                exhausted = True
                break
            place.start(job, attempts(job))
            running.append(job)
        if not running:
            return
        for job in list(running):
            seen = place.look(job)
            if seen.state is State.RUNNING:
                if watch(job):
                    continue
                place.stop(job)
                seen = Seen(State.GONE, "stopped early")
            elif seen.state is State.GONE and attempts(job) < ATTEMPTS:
                place.start(job, attempts.again(job))
                continue
            running.remove(job)
            ended(job, seen)
        time.sleep(POLL_S)


def was_killed(words: str) -> bool:
    """Does a failure's message say that a signal ended a process?"""
    return bool(KILLED.search(words))
