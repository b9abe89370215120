"""The pipeline as a Prefect flow: one task a stage, the gate last.

    python -m flows.pipeline [--refresh] [--no-gate]

DVC decides what is stale and keeps the results: Prefect caches none, and a stage that failed isn't retried.
See docs/adr/0002-dvc-decides-prefect-schedules-mlflow-remembers.md.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prefect import State, flow, runtime, task
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.states import Completed, Failed

from cgan.base.errors import CganError
from cgan.base.files import locked, read_json, write_bytes
from cgan.params.sections import flatten
from cgan.pipeline.params_file import set_params
from cgan.pipeline.project import BLOCKED_EXIT_CODE, DVC_LOCK, GATE_REPORT, home
from flows.artifact import publish_artifact
from flows.checkout import CHECKOUT_VARIABLE
from flows.children import has_remote, stale_stages
from flows.repro import Stages, log_line, repro, require_prefect, run_module

GATE_LIMIT = "cgan-gate"  # a global concurrency limit of Prefect's
FOLDER_LOCK = Path(".cgan/flow.lock")  # held by a run in this folder, and by its children

STAGES = [
    task(name=name, description=words)(repro)
    for name, words in {
        "params": "Is all of params.yaml valid?",
        "download": "Fetch the data: the sample, a file, pictures or Kaggle",
        "validate": "Are the data valid?",
        "preprocess": "Split the data into a training part and a hold-out",
        "train_judge": "Train the classifier that the metrics use",
        "train": "Train the GAN, on a GPU if torch finds one",
        "evaluate": "Measure the generator",
        "render": "Make drawings, interpolations, curves and diagrams",
        "page": "Make the page of the run",
        "record": "Add numbers and pictures to the MLflow run",
    }.items()
]


@task(name="gate", description="May this generator be served?")
def run_gate() -> State[Any]:
    """One at a time on all machines of a Prefect server, for the gate's own lock is of one machine."""
    # Another gate may make it just now; a server may refuse, and then the registry's own check is left.
    refused = contextlib.suppress(ObjectAlreadyExists, PrefectHTTPStatusError)
    with refused, get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GATE_LIMIT, 1)
    with concurrency(GATE_LIMIT, raise_on_lease_renewal_failure=False):
        state = run_module("cgan.cli", "gate", exit_codes=(0, BLOCKED_EXIT_CODE))
    if state.is_failed():
        return state
    report = read_json(GATE_REPORT)
    return Completed(name=report["verdict"].capitalize(), message=report["sentence"])


@task(description="Push the results to the DVC remote", retries=2, retry_delay_seconds=10)
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
    """From a CSV of labelled images to a judged generator. DVC runs only the stages that are stale.

    Args:
        refresh: Fetch the data again. When it comes back unchanged, nothing after it runs.
        overrides: Values to write into params.yaml first, such as {"train.lr": 0.001}. A run of a deployment
            starts from the committed ones.
        gate: After all stages, judge the generator against the champion, and promote it if it passes.
    """
    is_checkout = bool(os.environ.get(CHECKOUT_VARIABLE))
    words = "Another run is working in this folder. This one waits until it ends."
    # What a run that was killed had started holds the lock, too.
    with locked(FOLDER_LOCK, on_wait=lambda: log_line(words), inherited=True):
        try:
            stages = Stages([stage.name for stage in STAGES], refresh, is_checkout and has_remote())
            if overrides:
                stale_stages()  # while a stage runs, params.yaml must not change
                log_line(f"params.yaml: {', '.join(set_params(overrides)) or 'nothing changed'}")
            for stage in STAGES:
                _require(stage(stages, stage.name), f"Stage `{stage.name}`: ")
            judged = _require(run_gate(), "Gate: ") if gate else Completed()
            message = publish_artifact(gate)
            if stages.remote:
                _require(push(), f"{message}\nThese results are on this machine alone. dvc push: ")
            ended: State[Any] = Completed(name=judged.name, message=message)
        except CganError as error:
            ended = Failed(message=str(error))
        if is_checkout and DVC_LOCK.exists():  # the next one begins with these results
            write_bytes(home() / DVC_LOCK, DVC_LOCK.read_bytes())
    return ended


def _require(state: State[Any], where: str) -> State[Any]:
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
        require_prefect()
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
