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
from collections.abc import Iterator, Mapping, Sequence
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
from cgan.files import read_json
from cgan.params.reading import load_params, parse_yaml
from cgan.params.sections import flatten
from cgan.project import GATE_REPORT, REEVALUATION_REPORT
from flows import artifacts, remote, tasks
from flows.checkout import CHECKOUT, begin
from flows.dvc import NUMBERS, Repro, Stage, choose, read_stages
from flows.notices import notify
from flows.servers import fault

FETCH = "download"  # the stage that a refresh forces
RECORD = "A sweep's training has no pictures: its numbers alone go to its MLflow run."
QUESTIONS = {
    "gate": "Is the new generator good enough, and better than the champion?",
    "reevaluate": "Is the champion still good, and are the data like those it was trained on?",
}


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
    results: list[artifacts.StageResult],
    tags: dict[str, str],
) -> None:
    """Run the stages one after the other; add to `results`.

    Raises CganError with the message of a stage that fails, and for params and a remote that cannot be used.
    """
    load_params()
    pull = CHECKOUT in os.environ and bool(remote.default_remote())
    context = tasks.run_context() | tags
    repro = Repro([stage.name for stage in stages], context=context, tags=tags, pull=pull)
    with contextlib.closing(repro):
        for stage in stages:
            started, outcome = time.monotonic(), "failed"
            force = refresh and stage.name == FETCH
            shown = {"name": stage.name, "description": stage.description}
            try:
                outcome = tasks.do(tasks.reproduce, repro, stage.name, force, **shown).result()
            except CganError as error:
                raise CganError(f"Stage `{stage.name}`: {error}") from None
            finally:
                seconds = time.monotonic() - started
                results.append(artifacts.StageResult(stage.name, outcome, seconds))
    if tags and stages[-1].name == "evaluate":  # a sweep's training, without the stage that records
        tasks.do(tasks.run_command, *NUMBERS, name="record", description=RECORD)


def _judge(command: str, report: Path) -> tuple[str, str]:
    """The verdict of `cgan gate` or `cgan reevaluate`, and why."""
    shown = {"name": command, "description": QUESTIONS[command]}
    tasks.do(tasks.run_command, "cgan.cli", command, **shown, **tasks.AT_THE_SAME_TIME)
    found = read_json(report)
    return found["verdict"].capitalize(), found["summary"]


def _deliver(results: Sequence[artifacts.StageResult], whole: bool) -> None:
    """Bring the results of a run in a checkout to the DVC remote, if there is one, and to `origin`."""
    done = [result.stage for result in results if result.outcome != "failed"]
    # A run that is tried again finds its results in the cache, and may not have delivered them.
    news = not artifacts.is_unchanged(results) or remote.owed().exists()
    news = news or runtime.flow_run.run_count > 1
    if CHECKOUT in os.environ and done and news and remote.default_remote():
        tasks.do(tasks.deliver, done, whole, name="deliver", **tasks.WHILE_AWAY)


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
    faults: list[str] = []
    with _kept(faults):
        chosen = choose(read_stages(), stages)  # before anything is written
        if overrides:
            tasks.do(tasks.write_overrides, overrides, name="params")
        _run_stages(chosen, refresh, results, tags or {})
    whole = not faults and not stages
    with _kept(faults, "Delivery (retry this run: nothing is trained again): "):
        _deliver(results, whole)  # the stages that ended before one failed, too
    done = artifacts.in_words(results)
    name = "Unchanged" if artifacts.is_unchanged(results) else None
    judged = ""
    # One at a time on all machines: `make deploy` makes the limit.
    limits = ["gate"] if runtime.deployment.id else []
    if gate and whole:
        with _kept(faults, "Gate: "), concurrency(limits, lease_duration=60):
            judged, why = _judge("gate", GATE_REPORT)
            # The generator may be trained anew and be the champion, bit by bit.
            name = name if judged == "Unchanged" else judged
            done = f"{why} ({done})"
    if results:
        artifacts.publish(results, judged=bool(judged))
    if faults:
        return Failed(message="\n".join(faults))
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
    faults: list[str] = []
    with _kept(faults):
        _run_stages(choose(read_stages(), [FETCH, "validate"]), True, [], {})
        try:
            name, message = _judge("reevaluate", REEVALUATION_REPORT)
        finally:
            artifacts.publish_reevaluation()
    if faults:
        return Failed(message=faults[0])
    return Completed(name=name, message=message)


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
