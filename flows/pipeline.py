"""The pipeline as a Prefect flow: one task a DVC stage.

    python -m flows.pipeline
    python -m flows.pipeline --refresh
    python -m flows.pipeline --set train.lr=1e-3 train.seed=2
    python -m flows.pipeline --stages evaluate render
    python -m flows.pipeline --no-gate

DVC decides what is stale and keeps the results, so Prefect's own caching is off and a stage that
failed isn't retried. See docs/adr/0002-dvc-decides-prefect-schedules-mlflow-remembers.md.
"""

from __future__ import annotations

import os
from pathlib import Path

# Read by Prefect when it is imported: nothing leaves this machine.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "60")  # not 20
# A run that stops sending these was killed: docs/production.md, "Notices".
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
if not os.access(Path.home(), os.W_OK):  # a container's user, a service
    Path(".cgan").mkdir(exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".cgan/prefect"))

import argparse
import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
from prefect import State, Task, flow, get_run_logger, runtime
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import FailedRun
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed
from rich.console import Console

from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.editing import set_params
from cgan.params.reading import load_params, parse_yaml
from cgan.params.sections import flatten
from cgan.project import GATE_REPORT
from cgan.registry.client import CAME_FIRST
from flows import artifacts
from flows.checkout import CHECKOUT, begin
from flows.dvc import (
    NUMBERS,
    BusyError,
    Outcome,
    Repro,
    Stage,
    check_free,
    choose,
    has_remote,
    own_words,
    run_dvc,
    run_own,
)
from flows.servers import fault

FETCH = "download"  # the stage that a refresh forces
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


def _no_traceback(record: logging.LogRecord) -> bool:
    """Prefect's engine logs the end of a flow that returned Failed as an unexpected exception."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


for _name in ("prefect.engine", "prefect.flow_runs"):  # the second under a worker
    logging.getLogger(_name).addFilter(_no_traceback)


def _go_on_unheard(console: Console) -> None:
    """When nobody reads the log any more, go on silently; rich would end the process."""
    console.quiet = True


Console.on_broken_pipe = _go_on_unheard  # type: ignore[method-assign,assignment]


def _run_name() -> str:
    """`nightly 25 Nov 02:00`; by hand `26 Nov 17:30 · train.seed=2`. Times are UTC."""
    run, given = runtime.flow_run, runtime.flow_run.parameters
    job = (given.get("tags") or {}).get("cgan.sweep.job")
    name = f"{job or runtime.deployment.name or ''} {run.scheduled_start_time:%d %b %H:%M}".strip()
    if job:
        return name  # its params are on the pages of the sweep
    parts = [f"{key}={value}" for key, value in flatten(given.get("overrides") or {}).items()]
    if stages := given.get("stages"):
        parts.append(f"stages {', '.join(stages)}")
    return " · ".join([name, *parts])


def _do(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
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


def _relay(line: str) -> None:
    """One line of DVC's or a stage's output into the log of the task."""
    level = LEVELS.get(line.partition(":")[0], logging.INFO)
    get_run_logger().log(level, "%s", line)


def _run_context() -> dict[str, str]:
    """What becomes tags of the MLflow run. Asks no server: one that went away stops no stage."""
    context = FlowRunContext.get()
    run = context and context.flow_run
    names = {"flow_run_id": "id", "flow_run_name": "name", "deployment_id": "deployment_id"}
    known = {f"prefect.{name}": getattr(run, field, None) for name, field in names.items()}
    return {name: str(value) for name, value in known.items() if value}


@contextlib.contextmanager
def _kept(faults: list[str], what: str = "") -> Iterator[None]:
    """The message of a CganError is added to `faults`, of which the run's message is made."""
    try:
        yield
    except CganError as error:
        faults.append(f"{what}{error}")


def _run_stages(
    stages: Sequence[Stage],
    refresh: bool,
    outcomes: dict[str, str],
    tags: dict[str, str],
    pull: bool = False,
) -> None:
    """Run the stages one after the other; add to `outcomes`.

    Raises CganError with the message of a stage that fails, and for params that cannot be used.
    """
    load_params()
    context = _run_context() | tags
    with contextlib.closing(Repro(context=context, tags=tags, pull=pull)) as repro:
        for stage in stages:
            outcomes[stage.name] = artifacts.FAILED
            force = refresh and stage.name == FETCH
            try:
                outcomes[stage.name] = _do(
                    *(stage.name, repro.stage, stage.name, _relay, force),
                    description=stage.description,
                )
            except CganError as error:
                raise CganError(f"Stage `{stage.name}`: {error}") from None
    if tags and stages[-1].name == "evaluate":  # a sweep's training, without the stage that records
        _do("record", run_own, NUMBERS, _relay, context)


def _write_params(overrides: dict[str, Any]) -> str:
    """Not under a running stage, which would fail at its end."""
    check_free()
    return f"changed {', '.join(set_params(overrides)) or 'nothing: the values are there already'}"


def _judge() -> tuple[str, str]:
    """The verdict of `cgan gate`, and why."""
    _do("gate", run_own, ["cgan.cli", "gate"], _relay, _run_context(), **AT_THE_SAME_TIME)
    found = read_json(GATE_REPORT)
    return found["verdict"].capitalize(), found["summary"]


def _push() -> str:
    """Results, and what they came from, to the DVC remote: those of earlier runs too that it lacks."""
    code, lines = run_dvc(["push", "--run-cache"], _relay)
    if code:
        raise CganError(f"{own_words(lines)}. The results are in this machine's cache.")
    return lines[-1] if lines else "nothing to do"


@flow(
    name="cgan",
    flow_run_name=_run_name,
    persist_result=False,
)
def pipeline(
    refresh: bool = False,
    overrides: dict[str, Any] | None = None,
    stages: list[str] | None = None,
    gate: bool = True,
    tags: dict[str, str] | None = None,
) -> State[Any]:
    """From a CSV of labelled images to a judged generator. DVC runs only the stages that are stale.

    Args:
        refresh: Fetch the data again. When it comes back unchanged, nothing after it runs.
        overrides: Values to write into params.yaml first, such as {"train.lr": 0.001}. In your own
            tree they stay there, as after `dvc exp run -S`: `git diff params.yaml` shows them. A run of
            a deployment starts from the committed params.yaml, so there they last for one run.
        stages: Only these stages of dvc.yaml, on the inputs that are there. Default: all.
        gate: After all stages, judge the generator against the champion, and promote it if it passes.
        tags: Tags for the MLflow run that this makes, such as {"mlflow.parentRunId": …}. With any, a
            training is not brought back from DVC's cache: its run would be another's.
    """
    begin()
    shared = CHECKOUT in os.environ and has_remote()
    outcomes: dict[str, str] = {}
    faults: list[str] = []
    with _kept(faults):
        chosen = choose(stages)  # before anything is written
        if overrides:
            _do("params", _write_params, overrides)
        _run_stages(chosen, refresh, outcomes, tags or {}, pull=shared)
    whole = not faults and not stages
    unchanged = artifacts.is_unchanged(outcomes)
    with _kept(faults, "dvc push: "):
        if shared and any(outcome != artifacts.FAILED for outcome in outcomes.values()):
            _do("push", _push, **WHILE_AWAY)
    done = artifacts.in_words(outcomes)
    name = "Unchanged" if unchanged else None
    # One at a time on all machines: `make deploy` makes the limit.
    limits = ["gate"] if runtime.deployment.id else []
    if gate and whole:
        with _kept(faults, "Gate: "), concurrency(limits, lease_duration=60):
            judged, why = _judge()
            artifacts.publish_verdict()
            # The generator may be trained anew and be the champion, bit by bit.
            name = name if judged == "Unchanged" else judged
            done = f"{why} ({done})"
    if outcomes:
        artifacts.publish(outcomes)
    if faults:
        return Failed(message="\n".join(faults))
    return Completed(name=name, message=done)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure, 130 after Ctrl-C."""
    # Prefect handles SIGTERM and then calls this: exit in the normal way, which ends a temporary server.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run the stages of dvc.yaml that are stale, each as a Prefect task.",
    )
    parser.add_argument("--refresh", action="store_true", help="fetch the data again")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="write a value into params.yaml first, such as train.lr=1e-3",
    )
    parser.add_argument("--stages", metavar="STAGE", nargs="+", help="only these stages, no gate")
    parser.add_argument(
        "--no-gate", dest="gate", action="store_false", help="do not judge, nor promote"
    )
    asked = parser.parse_args(arguments)
    try:
        _find_server()
        state = pipeline(
            refresh=asked.refresh,
            overrides=dict(map(parse_override, asked.overrides)) or None,
            stages=asked.stages,
            gate=asked.gate,
            return_state=True,
        )
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except httpx.TransportError as error:
        sys.stderr.write(
            f"Error: the Prefect server went away during the run ({type(error).__name__}). Finished "
            "stages are kept: start it again, and run this again.\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Run again: finished stages are kept, a training resumes.\n")
        return 130
    if state.is_completed():
        return 0
    sys.stderr.write(f"Error: {state.message}\n")
    return 1


def parse_override(text: str) -> tuple[str, Any]:
    """`train.lr=1e-3` → ("train.lr", 0.001): the value is read as in params.yaml."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CganError(f"--set: expected KEY=VALUE such as train.lr=1e-3, got {text!r}.")
    return key, parse_yaml(value, f"--set {key}")


def _end_temporary_server_with_us() -> None:
    """A flow that dies by SIGKILL cannot end Prefect's temporary server. What does it then waits for the
    end of a pipe that only we hold."""
    from prefect.server.api.server import SubprocessASGIServer

    if server := SubprocessASGIServer().server_process:
        heard, _ = os.pipe()
        command = ["sh", "-c", 'read -r _; kill "$0" 2> /dev/null', str(server.pid)]
        quiet = subprocess.DEVNULL
        waiting = subprocess.Popen(
            command, stdin=heard, stdout=quiet, stderr=quiet, start_new_session=True
        )
        waiting.returncode = 0  # it outlives us: nobody is to be warned of that
        os.close(heard)


def _find_server() -> None:
    """Check the Prefect server that is configured, or start the temporary one.

    Raises CganError when a server is configured and does not answer.
    """
    url = get_current_settings().api.url
    if url is None:
        # Ctrl-C in a terminal goes to every process of the group, and the server has to live on for
        # a moment to record how the run ended. Blocked signals are inherited.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            get_client(sync_client=True)
            _end_temporary_server_with_us()
        except RuntimeError as late:
            raise CganError(f"starting Prefect's temporary server: {late}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return
    with get_client(sync_client=True, httpx_settings={"timeout": 5}) as client:
        if words := fault(url, client):
            raise CganError(f"{words} To run without a server, unset PREFECT_API_URL.")


if __name__ == "__main__":
    sys.exit(main())
