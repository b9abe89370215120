"""A part of a flow run as a Prefect task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from prefect import State, Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from cgan.errors import CganError
from cgan.registry.client import CAME_FIRST
from flows.dvc import BusyError, Outcome

BUSY = "Busy"  # name of the failed state that is worth another try
# Ten minutes in all: longer than the longest preset trains.
WHILE_BUSY: dict[str, Any] = {
    "retries": 60,
    "retry_delay_seconds": 10,
    "retry_condition_fn": lambda _, __, state: state.name == BUSY,
}
WHILE_AWAY: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [10, 60],
    "retry_condition_fn": None,
}
AT_THE_SAME_TIME: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 0}  # others promote
LEVELS = {"ERROR": logging.ERROR, "Error": logging.ERROR, "WARNING": logging.WARNING}


def do(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function as a Prefect task of this name, again while another DVC process is at work. Its result
    is the task's message; an outcome is its state's name, too: Ran, Unchanged or Restored.

    Raises CganError with the message of one that the function raised. The task itself fails with that message
    alone: what is raised in it would be logged whole.
    """

    def run() -> State[Any]:
        try:
            done = function(*arguments)
        except CganError as error:
            busy = isinstance(error, BusyError) or CAME_FIRST in str(error)
            return Failed(name=BUSY if busy else "Failed", message=str(error))
        state = done.name.capitalize() if isinstance(done, Outcome) else None
        return Completed(name=state, message=f"{name}: {done or 'done'}", data=done)

    settings: dict[str, Any] = {
        "name": name,
        "task_run_name": name,
        "cache_policy": NO_CACHE,
        "persist_result": False,
        **WHILE_BUSY,
        **options,
    }
    state: State[Any] = Task(run, **settings)(return_state=True)
    if not state.is_completed():
        raise CganError(str(state.message))
    return state.result()


def relay(line: str) -> None:
    """One line of DVC's or a stage's output into the log of the task."""
    level = LEVELS.get(line.partition(":")[0], logging.INFO)
    get_run_logger().log(level, "%s", line)


def run_context() -> dict[str, str]:
    """What becomes tags of the MLflow run. Asks no server: one that went away stops no stage."""
    context = FlowRunContext.get()
    run = context and context.flow_run
    if not run:
        return {}
    known = {
        "flow_run_id": run.id,
        "flow_run_name": run.name,
        "deployment_id": run.deployment_id,
    }
    return {f"prefect.{name}": str(value) for name, value in known.items() if value}
