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
# A run that stops sending these was killed: see the deployment `zombie` in prefect.yaml.
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
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
from prefect import State, flow, runtime
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import FailedRun
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed
from rich.console import Console

from cgan.errors import CganError
from cgan.params.reading import load_params, parse_yaml
from cgan.params.sections import flatten
from cgan.project import RUN_REFERENCE
from cgan.run.lifecycle import made_for
from flows import artifacts, remote, tasks
from flows.checkout import CHECKOUT, begin
from flows.dvc import Repro, choose, read_stages
from flows.notices import notify
from flows.servers import fault

FETCH = "download"  # the stage that a refresh forces


def _no_traceback(record: logging.LogRecord) -> bool:
    """Prefect's engine logs the end of a flow that returned Failed as an unexpected exception."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


for _name in ("prefect.engine", "prefect.flow_runs"):  # the second under a worker
    logging.getLogger(_name).addFilter(_no_traceback)


def _go_on_unheard(console: Console) -> None:
    """When nobody reads the log any more, go on silently; rich would end the process."""
    console.quiet = True


Console.on_broken_pipe = _go_on_unheard  # type: ignore[method-assign,assignment]


def run_name(deployment: str | None, due: datetime, parameters: Mapping[str, Any]) -> str:
    """`nightly 25 Nov 02:00`; by hand `26 Nov 17:30 · train.seed=2`. Times are UTC."""
    if job := (parameters.get("tags") or {}).get("cgan.sweep.job"):
        return f"{job} {due:%d %b %H:%M}"  # its params are on the pages of the sweep
    parts = [f"{deployment} {due:%d %b %H:%M}" if deployment else f"{due:%d %b %H:%M}"]
    parts += [f"{key}={value}" for key, value in flatten(parameters.get("overrides") or {}).items()]
    if stages := parameters.get("stages"):
        parts.append(f"stages {', '.join(stages)}")
    return " · ".join(parts)


def _run_name() -> str:
    run = runtime.flow_run
    return run_name(runtime.deployment.name, run.scheduled_start_time, run.parameters)


def _run_stages(
    names: Sequence[str] | None,
    refresh: bool,
    results: list[artifacts.StageResult],
    tags: Mapping[str, str] | None = None,
) -> str | None:
    """Run the stages one after the other; add to `results`. Returns the message of the one that fails.

    Raises CganError for what is no stage, and for params and a remote that cannot be used.
    """
    stages = choose(read_stages(), names)
    load_params()
    pull = CHECKOUT in os.environ and bool(remote.default_remote())
    # A training that DVC brings back has an MLflow run already, which cannot get these tags.
    stops = {"train"} if tags else ()
    env = tasks.run_context()
    repro = Repro([stage.name for stage in stages], stops=stops, pull=pull, env=env)
    with contextlib.closing(repro):
        for stage in stages:
            job = tasks.run_dvc_stage.with_options(
                name=stage.name, task_run_name=stage.name, description=stage.description
            )
            started = time.monotonic()
            state = job(repro, stage.name, refresh and stage.name == FETCH, return_state=True)
            known = state.is_completed() and stage.name in stops
            if known and not made_for(tags or {}, RUN_REFERENCE):
                state = job(repro, stage.name, True, return_state=True)
            outcome = state.result() if state.is_completed() else "failed"
            seconds = time.monotonic() - started
            results.append(artifacts.StageResult(stage.name, outcome, seconds))
            if not state.is_completed():
                return f"Stage `{stage.name}`: {state.message}"
    if tags and stages[-1].name == "evaluate":
        recorded = tasks.record(return_state=True)
        return None if recorded.is_completed() else f"Record: {recorded.message}"
    return None


def _deliver(results: Sequence[artifacts.StageResult], whole: bool) -> str | None:
    """Bring the results of a run in a checkout to where other machines find them, if there is such a place.

    Returns a message if that fails: nobody would look for them in this machine's cache.
    """
    done = [result.stage for result in results if result.outcome != "failed"]
    # A run that is tried again finds its results in the cache, and may not have delivered them.
    news = (
        not artifacts.is_unchanged(results)
        or remote.owed().exists()
        or runtime.flow_run.run_count > 1
    )
    if not (CHECKOUT in os.environ and done and news and remote.default_remote()):
        return None
    state = tasks.deliver(done, whole, return_state=True)
    if state.is_completed():
        return None
    return (
        f"Delivery: {state.message} The results are in DVC's cache of this machine. Retry this run: "
        "nothing is trained again."
    )


@flow(
    name="cgan",
    flow_run_name=_run_name,
    persist_result=False,
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
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
    results: list[artifacts.StageResult] = []
    try:
        choose(read_stages(), stages)  # before anything is written
        if overrides:
            written = tasks.write_overrides(overrides, return_state=True)
            if not written.is_completed():
                return Failed(message=written.message)
        failed = _run_stages(stages, refresh, results, tags)
        # The stages that ended before one failed count, too.
        undelivered = _deliver(results, whole=not failed and not stages)
    except CganError as error:
        return Failed(message=str(error))
    done = artifacts.in_words(results)
    name = "Unchanged" if artifacts.is_unchanged(results) else None
    judged = None
    if gate and not stages and not failed:
        # One at a time on all machines: `make deploy` makes the limit.
        with concurrency(["gate"] if runtime.deployment.id else [], lease_duration=60):
            judged = tasks.run_gate(return_state=True)
        if judged.is_completed():
            # The generator may be trained anew and be the champion, bit by bit.
            name = name if judged.name == "Unchanged" else judged.name
            done = f"{judged.message} ({done})"
        else:
            failed = f"Gate: {judged.message}"
    artifacts.publish(results, judged=bool(judged and judged.is_completed()))
    if message := failed or undelivered:
        return Failed(message=message)
    return Completed(name=name, message=done)


@flow(
    name="reevaluate",
    flow_run_name=_run_name,
    persist_result=False,
    on_failure=[notify],
    on_crashed=[notify],
)
def reevaluate() -> State[Any]:
    """Judge the champion on data fetched anew: is it still good, are the data still of its kind?"""
    begin()
    try:
        if failed := _run_stages([FETCH, "validate"], refresh=True, results=[]):
            return Failed(message=failed)
    except CganError as error:
        return Failed(message=str(error))
    judged = tasks.run_reevaluation(return_state=True)
    artifacts.publish_reevaluation()
    if not judged.is_completed():
        return Failed(message=judged.message)
    return Completed(name="Healthy", message=judged.message)


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
