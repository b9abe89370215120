"""A worker of the pool on this machine: `make worker`, and the one that `make up` starts.

`join` has a worker in the pool of a Prefect server elsewhere, once that server, MLflow's, the DVC remote and
the git repository have answered. It takes the runs that are meant for one of its labels, which are work
queues of the pool. The supervisor runs `python -m flows.worker run NAME OPTION…`, with options of `prefect
worker start`. See docs/workers.md.
"""

from __future__ import annotations

import functools
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from cgan import git
from cgan.errors import CganError
from cgan.files import write_text
from cgan.params.reading import load_params
from cgan.reports.status_sources import POOL, ask_prefect
from cgan.store.address import (
    STORE,
    client_settings,
    environment_set,
    experiment_name,
    is_server,
    reason_of,
    store_uri,
    without_credentials,
)
from flows import remote
from flows.checkout import SOURCE, WORKER_PROCESS, sole_holder
from flows.servers import SERVERS_ONLY, Production, Program

THREADS_OF_A_TRAINING = 2  # `train.cpu_parts` of the presets
CUT_OFF = ["PENDING", "RUNNING", "CANCELLING", "CRASHED"]  # states of a run that may be cut off
WORKER = "prefect.worker.name"  # Prefect's label of a run
CUT_OFF_SINCE = timedelta(days=7)
Api = Callable[[str, str, Any], Any]  # asks Prefect: method, path and content → answer
BURIED = "Its worker was killed, and its process is gone."
WENT_BY = "No worker was there in time, and a later slot is run."
AGAIN = "It was cut off with its worker; the new worker takes it up."


def program(name: str, labels: Sequence[str], runs: int, server: str) -> Program:
    """A worker that takes so many runs at once, of these work queues."""
    queues = [word for label in labels for word in ("--work-queue", label)]
    options = shlex.join([name, "--limit", str(runs), *queues])
    return Program(options, without_credentials(server))


def become(name: str, options: Sequence[str]) -> NoReturn:
    """Take up what a killed worker left, and be Prefect's worker in this process."""
    api = functools.partial(ask_prefect, os.environ["PREFECT_API_URL"])
    take_up(api, name, Path(os.environ[SOURCE]))
    for variable in SERVERS_ONLY:
        os.environ.pop(variable, None)
    os.environ |= {"PYTHONPATH": str(Path.cwd()), WORKER_PROCESS: str(os.getpid())}
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    command += ["--install-policy", "never", *options]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def labels_here() -> tuple[str, ...]:
    """What this machine has: `cuda` beside `cpu` where there is a driver for an NVIDIA card."""
    return ("cpu", "cuda") if any(Path("/dev").glob("nvidia[0-9]*")) else ("cpu",)


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
    """Did the worker of this name take the run up last, perhaps with other labels?"""
    taken_by = str((run["labels"] or {}).get(WORKER, ""))
    return taken_by.partition(" (")[0] == name.partition(" (")[0]


def _set_state(api: Api, run: dict[str, Any], **state: Any) -> None:
    api("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def join(root: Path, labels: Sequence[str], runs: int | None) -> list[str]:
    """Check that all is there that a run needs, and start this machine's worker if it does not run."""
    if runs is not None and runs < 1:
        raise CganError(f"--runs: expected 1 or more, got {runs}.")
    production = Production(root)
    with production.one_at_a_time():
        labels = tuple(labels or labels_here())
        name, runs = _name(production, labels), runs or runs_at_once()
        require(root)
        url, store = api_url(), store_uri(root)
        shown = without_credentials(store)
        environment = {**production.environment(url), STORE: store, "CGAN_MLFLOW_PAGE": shown}
        production.supervise({"worker": program(name, labels, runs, url)}, environment)
        production.start("worker")
        return [
            f"worker   {name}, in the pool {POOL} of {without_credentials(url)}",
            f"takes    runs for {' and '.join(labels)}, {runs} at once",
            f"store    {shown}",
            f"log      {production.home / 'worker.log'}",
            "It ends with: make down",
        ]


def _name(production: Production, labels: Sequence[str]) -> str:
    """A worker's name is all of it that Prefect shows, so its labels are in there.

    Four digits of this project's folder stand behind the host's name: to a machine of the same name, one
    worker must not look like its own from before, whose runs it would bury.
    """
    digits = production.home / "worker-id"
    if not digits.is_file():
        write_text(digits, secrets.token_hex(2))
    return f"{socket.gethostname()}-{digits.read_text(encoding='utf-8')} ({', '.join(labels)})"


def require(root: Path) -> None:
    """Raises CganError that names each of Prefect, MLflow, the DVC remote and git that gives no answer."""
    checks: dict[str, Callable[[], Any]] = {
        "Prefect": lambda: ask_prefect(api_url(), "POST", "/work_pools/filter", {"limit": 1}),
        "MLflow": lambda: require_store(root),
        "DVC remote": remote.check,
        # Runs fetch their commit from there, and leave branches with their results.
        "git": lambda: git.git_remote("ls-remote", "--exit-code", "origin", "HEAD", folder=root),
    }
    faults = []
    for what, check in checks.items():
        try:
            check()
        except Exception as error:  # a store's client raises anything
            own = isinstance(error, CganError)
            faults.append(f"  {what}: {error if own else reason_of(error)}")
    if faults:
        raise CganError("this machine cannot join yet:\n" + "\n".join(faults))


def api_url() -> str:
    """Of a server, the address of its pages will do. Raises CganError where none is set."""
    url = os.environ.get("PREFECT_API_URL", "").strip().rstrip("/")
    if not url:
        raise CganError(
            "PREFECT_API_URL is not set. `make up` on the machine of the server says it, e.g. "
            "http://host:4200/api."
        )
    return url if "/api/" in f"{url}/" else f"{url}/api"


def require_store(root: Path) -> None:
    """Raises CganError where runs of this machine cannot be recorded with their files, else whatever MLflow
    raises."""
    uri = store_uri(root)
    if not is_server(uri):
        raise CganError(
            f"{STORE} is not set, or names no server. Set it to that of MLflow's, e.g. http://host:5000."
        )
    name = experiment_name(load_params(root / "params.yaml").tracking.experiment)
    with environment_set(client_settings()):
        from mlflow import MlflowClient

        found = MlflowClient(uri).get_experiment_by_name(name)
    if found and urlsplit(found.artifact_location).scheme in ("", "file"):
        raise CganError(
            f"the experiment `{name}` keeps its files in {found.artifact_location}, a folder of one machine. "
            "Give `tracking.experiment` in params.yaml a new name: the files of a new experiment go through "
            "the server (docs/workers.md)."
        )


if __name__ == "__main__":
    if sys.argv[1:2] != ["run"]:
        sys.exit("Error: start it with: make worker (python -m flows.production join)")
    try:
        become(sys.argv[2], sys.argv[3:])
    except CganError as error:
        sys.exit(f"Error: {error}")
