"""A job is one training of a sweep, in a process with a checkout of its name: whoever starts it again, waits
for the process that is left of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from flows.dvc import StageError, read_stages, run_own

SWEEPS = Path(".cgan/sweeps")  # logs of jobs

Watch = Callable[[], None]  # called while a job runs; what it raises ends the job


class JobError(CganError):
    """A job ended without a result. Why, in words."""


@dataclass(frozen=True)
class Job:
    """`overrides`: of params.yaml; `tags`: of the MLflow run that it makes."""

    name: str
    overrides: dict[str, Any]
    tags: dict[str, str]


def _stages() -> list[str]:
    """Of a training: up to the one that measures."""
    names = [stage.name for stage in read_stages()]
    return names[: names.index("evaluate") + 1]


def train_here(base: Path, commit: str, job: Job, watch: Watch) -> None:
    """In a process that ends with this one, however this one ends; a training saves a checkpoint first."""
    asked = json.dumps([str(base), commit, job.name, job.overrides, _stages(), job.tags])
    with (base / SWEEPS / f"{job.name}.log").open("a", encoding="utf-8") as log:

        def relay(line: str) -> None:
            log.write(f"{line}\n")
            log.flush()
            watch()

        try:
            run_own(["flows.sweep.here", asked], relay)
        except StageError as error:
            raise JobError(str(error)) from None
