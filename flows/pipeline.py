"""The pipeline as a Prefect flow: one task per stage, the gate last.

    python -m flows.pipeline [--refresh] [--no-gate]

DVC decides what is stale and keeps the results: Prefect caches none, and a stage that failed isn't retried.
See docs/adr/0002-dvc-decides-prefect-schedules-mlflow-remembers.md.
"""

import argparse
import base64
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prefect import State, flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from cgan.base.errors import CganError
from cgan.base.files import locked, read_json, write_bytes
from cgan.params.sections import flatten
from cgan.pipeline import project
from cgan.pipeline.params_file import set_params
from cgan.pipeline.tracking.store import page_in_mlflow
from cgan.quality.evaluation import Evaluation
from flows.checkout import CHECKOUT_VARIABLE
from flows.children import CONTEXT_VARIABLE, has_remote, run_child, stale_stages

GATE_LIMIT = "cgan-gate"  # a global concurrency limit of Prefect's
FOLDER_LOCK = Path(".cgan/flow.lock")  # held by a run in this folder, and by its children


def repro(stage: str, is_unchanged: bool, options: Sequence[str]) -> State[Any]:
    """Bring a stage up to date. Returns the state of its task: Completed, *Unchanged* or Failed."""
    if is_unchanged:
        return Completed(name="Unchanged", message="not stale")
    return run_module("dvc", "repro", "--single-item", stage, *options)


def run_module(*module: str, exit_codes: Sequence[int] = (0,)) -> State[Any]:
    """`python -m MODULE …`, its output in the run's log. Failed where `run_child` raises."""
    run = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
    }
    variables = {CONTEXT_VARIABLE: json.dumps(run)}
    try:
        run_child(*module, on_line=log_line, variables=variables, exit_codes=exit_codes)
    except CganError as error:
        return Failed(message=str(error))
    return Completed()


def log_line(line: str) -> None:
    get_run_logger().info("%s", line)


STAGE_NAMES = (
    *("params", "download", "validate", "preprocess", "train_judge", "train"),
    *("evaluate", "render", "page", "record"),
)
STAGES = [task(name=name)(repro) for name in STAGE_NAMES]


def unchanged_stages() -> list[str]:
    """The stages before the first stale one."""
    stale = stale_stages()
    return [*itertools.takewhile(lambda name: name not in stale, STAGE_NAMES)]


@task(name="gate")
def run_gate(takes_turns: bool) -> State[Any]:
    """One at a time on all machines of a Prefect server: locks of files hold on one machine."""
    with contextlib.ExitStack() as turn:
        if takes_turns and PREFECT_API_URL.value():  # a temporary server has this flow alone
            with get_client(sync_client=True) as client:
                client.upsert_global_concurrency_limit_by_name(GATE_LIMIT, 1)
            turn.enter_context(concurrency(GATE_LIMIT, raise_on_lease_renewal_failure=False))
        state = run_module("cgan.cli", "gate", exit_codes=(0, project.BLOCKED_EXIT_CODE))
    if state.is_failed():
        return state
    report = read_json(project.GATE_REPORT)
    return Completed(name=report["verdict"].capitalize(), message=report["sentence"])


def publish_artifact(judged: bool) -> str:
    """Make the artifact `run`. Returns the run's message: why the gate decided so, or the quality."""
    if judged:
        text = project.GATE_TEXT.read_text(encoding="utf-8")
        summary = str(read_json(project.GATE_REPORT)["sentence"])
    else:
        report = Evaluation.read(project.EVALUATION).report()
        text, summary = report.as_markdown(), report.sentence
    # With its bytes in it: a page would not find a file.
    grid = base64.b64encode(project.GRID.read_bytes()).decode()
    picture = f"![A row for each class](data:image/png;base64,{grid})"
    link = f"[The MLflow run]({page_in_mlflow(read_json(project.RUN_LOCATION))})"
    create_markdown_artifact("\n\n".join([text, link, picture]), key="run")
    return summary


@task(retries=2, retry_delay_seconds=10)
def push() -> State[Any]:
    return run_module("dvc", "push", "--run-cache")


def _run_name() -> str:
    """`nightly 25 Nov 02:00`, `train 26 Nov 17:30 · train.seed=2`. Times are UTC."""
    overrides = flatten(runtime.flow_run.parameters.get("overrides") or {})
    name = f"{runtime.deployment.name or ''} {runtime.flow_run.scheduled_start_time:%d %b %H:%M}"
    return " · ".join([name.strip(), *(f"{key}={value}" for key, value in overrides.items())])


@flow(name="cgan", flow_run_name=_run_name, persist_result=False)
def pipeline(
    refresh: bool = False, overrides: dict[str, Any] | None = None, gate: bool = True
) -> State[Any]:
    """From labelled images to a judged generator. DVC runs only the stages that are stale.

    Args:
        refresh: Fetch the data again. Unchanged data make no stage stale.
        overrides: Values to write into params.yaml first, such as {"train.lr": 0.001}. A run of a deployment
            starts from the committed ones.
        gate: After all stages, judge the generator against the champion, and promote it if it passes.
    """
    is_checkout = bool(os.environ.get(CHECKOUT_VARIABLE))
    words = "Another run is working in this folder. This one waits until it ends."
    # What a run that was killed had started holds the lock, too.
    with locked(FOLDER_LOCK, on_wait=lambda: log_line(words), inherited=True):
        try:
            pull = ["--pull"] if is_checkout and has_remote() else []
            if overrides:
                log_line(f"params.yaml: {', '.join(set_params(overrides)) or 'nothing changed'}")
            unchanged = unchanged_stages()
            for stage in STAGES:
                force = ["--force"] if refresh and stage.name == "download" else []
                is_unchanged = not force and stage.name in unchanged
                done = stage(stage.name, is_unchanged, [*force, *pull])
                _raise_if_failed(done, f"Stage `{stage.name}`: ")
                if force:  # DVC is asked again which stages the new data made stale
                    unchanged = unchanged_stages()
            # With nothing new to judge, two seconds in which SQLite is busy with ten tasks' ends are saved.
            takes_turns = len(unchanged) < len(STAGES)
            judged = _raise_if_failed(run_gate(takes_turns), "Gate: ") if gate else Completed()
            message = publish_artifact(gate)
            if pull:
                _raise_if_failed(
                    push(), f"{message}\nThese results are on this machine alone. dvc push: "
                )
            ended: State[Any] = Completed(name=judged.name, message=message)
        except CganError as error:
            ended = Failed(message=str(error))
        if is_checkout and project.DVC_LOCK.exists():  # the next one begins with these results
            write_bytes(project.home() / project.DVC_LOCK, project.DVC_LOCK.read_bytes())
    return ended


def _raise_if_failed(state: State[Any], where: str) -> State[Any]:
    if state.is_failed():
        raise CganError(f"{where}{state.message}")
    return state


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure, 130 after Ctrl-C."""
    # Prefect handles SIGTERM and then calls this: exit in the normal way, which ends a temporary server.
    signal.signal(signal.SIGTERM, lambda kind, _: sys.exit(128 + kind))
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--refresh", action="store_true", help="fetch the data again")
    add("--no-gate", dest="gate", action="store_false", help="neither judge nor promote")
    args = parser.parse_args(arguments)
    try:
        # Ctrl-C goes to every process of the group, and Prefect's temporary server, if none is configured,
        # has to live on for a moment to record how the run ended. Blocked signals are inherited.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with get_client(sync_client=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        state = pipeline(**vars(args), return_state=True)
        if state.is_failed() or state.is_crashed():
            raise CganError(str(state.message or state.name))
    except (CganError, httpx.TransportError, RuntimeError) as error:  # of Prefect's client
        sys.stderr.write(f"Error: {error or type(error).__name__}\n")
        return 1
    except KeyboardInterrupt:
        words = "Interrupted. Run this again: finished stages are kept, and a training resumes."
        sys.stderr.write(f"{words}\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
