"""The tasks of a flow run, as Prefect shows them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from prefect import State, Task, get_run_logger, runtime
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from cgan.errors import CganError
from cgan.files import write_text
from cgan.params.editing import set_params
from cgan.registry.client import CAME_FIRST
from flows import remote
from flows.dvc import BusyError, Outcome, Repro, check_free, run_own

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


def do(
    function: Callable[..., State[Any]], *arguments: Any, name: str, **options: Any
) -> State[Any]:
    """Call a function as a Prefect task of this name, again while another DVC process is at work.

    Raises CganError with the message of one that the function raised. The task itself fails with that message
    alone: what is raised in it would be logged whole.
    """

    def run() -> State[Any]:
        try:
            return function(*arguments)
        except CganError as error:
            busy = isinstance(error, BusyError) or CAME_FIRST in str(error)
            return Failed(name=BUSY if busy else "Failed", message=str(error))

    settings: dict[str, Any] = {
        "name": name,
        "task_run_name": name,
        "description": function.__doc__,
        "cache_policy": NO_CACHE,
        "persist_result": False,
        **WHILE_BUSY,
        **options,
    }
    state: State[Any] = Task(run, **settings)(return_state=True)
    if not state.is_completed():
        raise CganError(str(state.message))
    return state


def relay(line: str) -> None:
    """One line of DVC's or a stage's output into the log of the task."""
    level = LEVELS.get(line.partition(":")[0], logging.INFO)
    get_run_logger().log(level, "%s", line)


def run_context() -> dict[str, str]:
    """What becomes tags of the MLflow run. Asks no server: one that went away stops no stage."""
    context = FlowRunContext.get()
    if not (context and (run := context.flow_run)):
        return {}
    known = {
        "flow_run_id": run.id,
        "flow_run_name": run.name,
        "deployment_id": run.deployment_id,
    }
    return {f"prefect.{name}": str(value) for name, value in known.items() if value}


def reproduce(repro: Repro, stage: str, force: bool) -> State[Outcome]:
    """Reproduce one DVC stage. The state's name says what happened: Ran, Unchanged or Restored."""
    outcome = repro.stage(stage, relay, force=force)
    return Completed(name=outcome.name.capitalize(), message=f"{stage}: {outcome}", data=outcome)


def write_overrides(overrides: dict[str, Any]) -> State[Any]:
    """Write the overrides into params.yaml, but never under a running stage (it would poison dvc.lock)."""
    check_free()
    changed = ", ".join(set_params(overrides)) or "nothing: the values are there already"
    return Completed(message=f"params.yaml: changed {changed}")


def run_command(*command: str) -> State[Any]:
    """`python -m COMMAND …`, whose MLflow run or version gets this run's tags."""
    run_own(command, relay, run_context())
    return Completed()


def deliver(stages: list[str], whole: bool) -> State[Any]:
    """Results of these stages to the DVC remote; of a whole run, a branch that points to them to `origin`."""
    write_text(remote.owed(), "")
    done = remote.push(relay, stages)
    if whole:
        run = runtime.flow_run
        # What is special about the run may be long, and stands in its params.yaml.
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{run.name.partition(' · ')[0]} {run.id[:8]}")
        done = f"{done} {remote.publish(f'runs/{name}', f'Results of {run.name}')}"
    remote.owed().unlink(missing_ok=True)
    return Completed(message=done)
