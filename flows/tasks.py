"""The tasks of a flow run, as Prefect shows them."""

from __future__ import annotations

import json
import logging
from typing import Any

from prefect import State, Task, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from cgan.errors import CganError
from cgan.params.editing import set_params
from cgan.registry.client import CAME_FIRST
from flows import artifacts, remote
from flows.dvc import NUMBERS, BusyError, Repro, check_free, run_own

BUSY = "Busy"  # name of the failed state that is worth another try
BUSY_RETRIES = 60
GATE_TRIES = 3  # as many as promote at the same time


def _is_busy(_: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    return state.name == BUSY and task_run.run_count < BUSY_RETRIES


def relay(line: str) -> None:
    """One line of DVC's or a stage's output into the log of the task."""
    level = logging.INFO
    if line.startswith(("ERROR:", "Error:")):
        level = logging.ERROR
    elif line.startswith("WARNING:"):
        level = logging.WARNING
    get_run_logger().log(level, "%s", line)


def _failed(error: CganError) -> State[Any]:
    """A failed state with the message alone: a raised exception would be logged with a traceback."""
    return Failed(name=BUSY if isinstance(error, BusyError) else "Failed", message=str(error))


def run_context() -> str:
    """What becomes tags of the MLflow run. Asks no server: one that went away stops no stage."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return "{}"
    run = context.flow_run
    known = {"flow_run_id": run.id, "flow_run_name": run.name, "deployment_id": run.deployment_id}
    tags = {f"prefect.{name}": str(value) for name, value in known.items() if value}
    return json.dumps({**tags, **(run.parameters.get("tags") or {})})


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_is_busy)
def run_dvc_stage(repro: Repro, stage: str, force: bool) -> State[Any]:
    """Reproduce one DVC stage. The state's name says what happened: Ran, Unchanged or Restored."""
    try:
        outcome = repro.stage(stage, relay, force=force)
    except CganError as error:
        return _failed(error)
    return Completed(name=outcome.name.capitalize(), message=f"{stage}: {outcome}", data=outcome)


@task(
    name="params",
    task_run_name="params",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=_is_busy,
)
def write_overrides(overrides: dict[str, Any]) -> State[Any]:
    """Write the overrides into params.yaml, but never under a running stage (it would poison dvc.lock)."""
    try:
        check_free()
        changed = list(set_params(overrides))
    except CganError as error:
        return _failed(error)
    words = ", ".join(changed) or "nothing: the values are there already"
    return Completed(message=f"params.yaml: changed {words}", data=changed)


@task(name="deliver", task_run_name="deliver", cache_policy=NO_CACHE, persist_result=False)
def deliver(stages: list[str], whole: bool) -> State[Any]:
    """Results of these stages to the DVC remote; of a whole run, a branch that points to them to `origin`."""
    run = runtime.flow_run
    # What is special about the run may be long, and stands in its params.yaml.
    branch = remote.branch_name(f"{run.name.partition(' · ')[0]} {run.id[:8]}")
    try:
        with remote.owed():
            said = [remote.push(relay, stages)]
            if whole:
                said.append(remote.publish(branch, f"Results of {run.name}"))
    except CganError as error:
        return _failed(error)
    return Completed(message=" ".join(said))


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE, persist_result=False)
def run_gate() -> State[Any]:
    """Is the new generator good enough, and better than the champion? The state's name says it."""
    for left in reversed(range(GATE_TRIES)):
        try:
            run_own(["cgan.cli", "gate"], relay, {"MLFLOW_RUN_CONTEXT": run_context()})
            verdict = artifacts.read_verdict()
            break
        except CganError as error:
            if CAME_FIRST not in str(error) or not left:
                return _failed(error)
            relay("Another machine promoted meanwhile: judged again, beside the new champion.")
    return Completed(name=verdict["verdict"].capitalize(), message=verdict["summary"], data=verdict)


@task(name="record", task_run_name="record", cache_policy=NO_CACHE, persist_result=False)
def record() -> State[Any]:
    """A sweep's training has no pictures: its numbers alone go to its MLflow run."""
    try:
        run_own(NUMBERS, relay)
    except CganError as error:
        return _failed(error)
    return Completed()


@task(name="reevaluate", task_run_name="reevaluate", cache_policy=NO_CACHE, persist_result=False)
def run_reevaluation() -> State[Any]:
    """Is the champion still good on the data of today, and are they like those it was trained on?"""
    try:
        run_own(["cgan.cli", "reevaluate"], relay, {"MLFLOW_RUN_CONTEXT": run_context()})
    except CganError as error:
        return _failed(error)
    return Completed(message=artifacts.reevaluation_summary())
