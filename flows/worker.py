"""The worker that `make up` starts: it takes up what a killed one left, and becomes Prefect's.

The supervisor runs `python -m flows.worker run NAME OPTION…`, with options of `prefect worker start`.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from cgan.errors import CganError
from cgan.store.address import without_credentials
from flows.checkout import SOURCE, sole_holder
from flows.servers import POOL, SERVERS_ONLY, Program, ask_prefect

THREADS_OF_A_TRAINING = 2  # `train.cpu_parts` of the presets
CUT_OFF = ["PENDING", "RUNNING", "CANCELLING", "CRASHED"]  # states of a run that may be cut off
WORKER = "prefect.worker.name"  # Prefect's label of a run
CUT_OFF_SINCE = timedelta(days=7)
Api = Callable[[str, str, Any], Any]  # asks Prefect: method, path and content → answer
BURIED = "Its worker was killed, and its process is gone."
WENT_BY = "No worker was there in time, and a later slot is run."
AGAIN = "It was cut off with its worker; the new worker takes it up."


def program(name: str, runs: int, server: str) -> Program:
    """A worker that takes so many runs at once."""
    return Program(shlex.join([name, "--limit", str(runs)]), without_credentials(server))


def become(name: str, options: Sequence[str]) -> NoReturn:
    """Take up what a killed worker left, and be Prefect's worker in this process."""
    api = functools.partial(ask_prefect, os.environ["PREFECT_API_URL"])
    take_up(api, name, Path(os.environ[SOURCE]))
    for variable in SERVERS_ONLY:
        os.environ.pop(variable, None)
    os.environ["PYTHONPATH"] = str(Path.cwd())
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    command += ["--install-policy", "never", *options]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def runs_at_once() -> int:
    """How many trainings this machine's cores are enough for."""
    return max(1, (os.cpu_count() or 1) // THREADS_OF_A_TRAINING)


def take_up(api: Api, name: str, source: Path) -> None:
    """Schedule again, once, the runs of the worker `name` that were cut off: of a schedule the latest alone.

    DVC goes on where it was. What was cut off twice is for a person. Of the slots of a schedule that went by,
    the last is run.
    """
    since = (datetime.now(UTC) - CUT_OFF_SINCE).isoformat()
    for deployment in api("POST", "/deployments/filter", {}):

        def runs(state: dict[str, Any], of: str = deployment["id"], **more: Any) -> Any:
            flow_runs = {"state": state, "expected_start_time": {"after_": since}}
            question = {"deployments": {"id": {"any_": [of]}}, "flow_runs": flow_runs, **more}
            return api("POST", "/flow_runs/filter", question)

        latest: dict[str, Any] = {"limit": 1} if deployment["schedules"] else {}
        # A slot that the limit cancelled counts as started.
        began = {"type": {"not_any_": ["SCHEDULED", "CANCELLED"]}}
        for run in runs(began, sort="START_TIME_DESC", **latest):
            if run["state_type"] not in CUT_OFF or not _took(name, run):
                continue
            with sole_holder(source, run["id"]):  # its process has ended, or is about to
                run = api("GET", f"/flow_runs/{run['id']}", None)
            # Another worker may have it since.
            if run["state_type"] not in CUT_OFF or not _took(name, run):
                continue
            if run["state_type"] != "CRASHED":
                _set_state(api, run, type="CRASHED", name="Crashed", message=BURIED)
            # Not by its count of runs: one that ends before it is Running has none.
            states = api("GET", f"/flow_run_states/?flow_run_id={run['id']}", None)
            if all(state["message"] != AGAIN for state in states):
                due = {"scheduled_time": run["expected_start_time"]}  # before later slots
                again = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": due}
                _set_state(api, run, **again, message=AGAIN)
        late = runs({"name": {"any_": ["Late"]}}, sort="EXPECTED_START_TIME_ASC")
        for run in [run for run in late if run["auto_scheduled"]][:-1]:
            _set_state(api, run, type="CANCELLED", name="Cancelled", message=WENT_BY)


def _took(name: str, run: dict[str, Any]) -> bool:
    """Did the worker of this name take the run up last?"""
    return bool((run["labels"] or {}).get(WORKER) == name)


def _set_state(api: Api, run: dict[str, Any], **state: Any) -> None:
    api("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


if __name__ == "__main__":
    if sys.argv[1:2] != ["run"]:
        sys.exit("Error: start it with: make up")
    try:
        become(sys.argv[2], sys.argv[3:])
    except CganError as error:
        sys.exit(f"Error: {error}")
