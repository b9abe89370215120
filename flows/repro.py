"""How a task does its work: `dvc repro` of a stage, or another command, as a child."""

import itertools
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prefect import State, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed

from cgan.base.errors import CganError
from flows.children import CONTEXT_VARIABLE, in_session, stale_stages


@dataclass
class Stages:
    """The stages of a flow run, as its tasks see them. `names`: of all, in order."""

    names: Sequence[str]
    refresh: bool = False
    remote: bool = False  # results come from DVC's remote, and go there

    @cached_property
    def unchanged(self) -> list[str]:
        """The stages before the first stale one."""
        stale = stale_stages()
        return list(itertools.takewhile(lambda name: name not in stale, self.names))


def repro(stages: Stages, stage: str) -> State[Any]:
    """Bring a stage up to date. Returns the state of its task: Completed, *Unchanged* or Failed."""
    force = stages.refresh and stage == "download"
    try:
        if not force and stage in stages.unchanged:
            return Completed(name="Unchanged", message="not stale")
    except CganError as error:
        return Failed(message=str(error))
    options = ["--force"] * force + ["--pull"] * stages.remote
    done = run_module("dvc", "repro", "--single-item", stage, *options)
    if force:  # DVC is asked anew, what the data have changed
        vars(stages).pop("unchanged", None)
    return done


def run_module(*module: str, exit_codes: Sequence[int] = (0,)) -> State[Any]:
    """`python -m MODULE …`, its output in the run's log. Failed where `in_session` raises."""
    run = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
    }
    variables = {CONTEXT_VARIABLE: json.dumps(run)}
    try:
        in_session(*module, on_line=log_line, variables=variables, exit_codes=exit_codes)
    except CganError as error:
        return Failed(message=str(error))
    return Completed()


def log_line(line: str) -> None:
    """Into the run's log."""
    get_run_logger().info("%s", line)


def require_prefect() -> None:
    """Start Prefect's temporary server, if none is configured. Raises CganError where none answers."""
    # Ctrl-C goes to every process of the group, and that server has to live on for a moment to record how the
    # run ended. Blocked signals are inherited.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            failure = client.api_healthcheck()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if failure:
        raise CganError(
            f"Prefect's server at PREFECT_API_URL cannot be used ({failure!r}). `make up` starts one."
        )
