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
from typing import Any

import httpx
from prefect import State, flow, runtime, task
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.states import Cancelled, Completed, Failed

from cgan.errors import CganError
from cgan.files import read_json, write_bytes
from cgan.git import GitError
from cgan.hosts import no_proxy_variables
from cgan.params.sections import flatten
from cgan.pipeline.params_file import set_params
from cgan.project import BLOCKED_EXIT_CODE, DVC_LOCK, GATE_REPORT, home
from flows.artifact import publish_artifact
from flows.checkout import CHECKOUT_VARIABLE, tag_results
from flows.repro import (
    Stages,
    dvc,
    exclusive_folder,
    has_remote,
    log_line,
    repro,
    require_prefect,
    run_module,
)
from flows.turns import older_nightly_run

GATE_LIMIT = "cgan-gate"  # a global concurrency limit of Prefect's
# The engine would log a run that returns a Cancelled state as an error. So it returns a Completed one with
# one of these names, which `_show_cancelled` replaces by the Cancelled state whose name stands beside it.
CANCELLED = {"Judged": "Blocked", "Ended": "Cancelled"}


@task(description="Is all of params.yaml valid?")
def params(stages: Stages) -> State[Any]:
    return repro(stages, "params")


@task(description="Fetch the data: the sample, a file, pictures or Kaggle")
def download(stages: Stages) -> State[Any]:
    return repro(stages, "download", force=stages.refresh)


@task(description="Are the data valid?")
def validate(stages: Stages) -> State[Any]:
    return repro(stages, "validate")


@task(description="Split the data into a training part and a hold-out")
def preprocess(stages: Stages) -> State[Any]:
    return repro(stages, "preprocess")


@task(description="Train the classifier that the metrics use")
def train_judge(stages: Stages) -> State[Any]:
    return repro(stages, "train_judge")


@task(description="Train the GAN, on a GPU if torch finds one")
def train(stages: Stages) -> State[Any]:
    return repro(stages, "train")


@task(description="Measure the generator")
def evaluate(stages: Stages) -> State[Any]:
    return repro(stages, "evaluate")


@task(description="Make drawings, interpolations, curves and diagrams")
def render(stages: Stages) -> State[Any]:
    return repro(stages, "render")


@task(description="Make the page of the run")
def page(stages: Stages) -> State[Any]:
    return repro(stages, "page")


@task(description="Add numbers and pictures to the MLflow run")
def record(stages: Stages) -> State[Any]:
    return repro(stages, "record")


STAGES = params, download, validate, preprocess, train_judge, train, evaluate, render, page, record


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
    return Completed(name=report["verdict"].capitalize(), message=report["summary"])


@task(description="Push the results to the DVC remote", retries=2, retry_delay_seconds=10)
def push() -> State[Any]:
    return run_module("dvc", "push", "--run-cache")


def _show_cancelled(flow: Any, flow_run: Any, state: State[Any]) -> None:
    """*Blocked*, and a night that ends because an older one still works, are neither successes nor failures:
    their type is Cancelled."""
    if name := CANCELLED.get(str(state.name)):
        shown: State[Any] = Cancelled(name=name, message=state.message)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, shown, force=True)


def _run_name() -> str:
    """`nightly 25 Nov 02:00`, `train 26 Nov 17:30 · train.seed=2`. Times are UTC."""
    overrides = flatten(runtime.flow_run.parameters.get("overrides") or {})
    name = f"{runtime.deployment.name or ''} {runtime.flow_run.scheduled_start_time:%d %b %H:%M}"
    return " · ".join([name.strip(), *(f"{key}={value}" for key, value in overrides.items())])


@flow(name="cgan", flow_run_name=_run_name, persist_result=False, on_completion=[_show_cancelled])
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
    if older := older_nightly_run():
        return _give_way_to(older)
    with exclusive_folder(log_line):
        try:
            uses_remote = bool(os.environ.get(CHECKOUT_VARIABLE)) and has_remote()
            stages = Stages([stage.name for stage in STAGES], refresh, uses_remote)
            if overrides:
                dvc("status")  # while a stage runs, params.yaml must not change
                log_line(f"params.yaml: {', '.join(set_params(overrides)) or 'nothing changed'}")
            for stage in STAGES[:-1]:
                _require(stage(stages), f"Stage `{stage.name}`: ")
            recorded = record(stages)
            if recorded.is_failed():  # MLflow is away: the next run records the training
                _keep_results(stages, str(recorded.message), "not-recorded")
            _require(recorded, "Stage `record`: ")
            judged = _require(run_gate(), "Gate: ") if gate else None
            message = publish_artifact(judged is not None)
            outcome = str(judged.name).lower() if judged else "completed"
            _keep_results(stages, message, outcome)
        except CganError as error:
            if older := older_nightly_run():
                return _give_way_to(older)
            return Failed(message=str(error))
    name = judged.name if judged else "Completed"
    return Completed(name="Judged" if name == "Blocked" else name, message=message)


def _give_way_to(name: str) -> State[Any]:
    return Completed(name="Ended", message=f"`{name}` is still running")


def _keep_results(stages: Stages, message: str, outcome: str) -> None:
    """Keep the results for the checkouts of later runs, here and on other machines."""
    if os.environ.get(CHECKOUT_VARIABLE):  # the next one begins with these results
        write_bytes(home() / DVC_LOCK, DVC_LOCK.read_bytes())
        if outcome != "unchanged":
            start = f"{runtime.flow_run.scheduled_start_time:%Y-%m-%dT%H%M}"
            try:
                tag_results(f"run/{start}-{outcome}-{str(runtime.flow_run.id)[:8]}")
            except GitError as error:
                log_line(f"WARNING: the results have no tag, for `dvc gc` to keep them: {error}")
    if stages.remote:
        _require(push(), "dvc push: ", f"\nThe results are in this machine's cache.\n{message}")


def _require(state: State[Any], where: str, note: str = "") -> State[Any]:
    if state.is_failed():
        raise CganError(f"{where}{state.message}{note}")
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
    os.environ.update(no_proxy_variables(os.environ))
    try:
        require_prefect()
        state = pipeline(**vars(args), return_state=True)
        error = str(state.message or state.name) if state.is_failed() or state.is_crashed() else ""
    except CganError as refused:
        error = str(refused)
    except httpx.TransportError as away:
        error = f"the Prefect server went away during the run ({type(away).__name__}). Finished stages are "
        error += "kept. Start the server, and run this again."
    except KeyboardInterrupt:
        words = "Interrupted. Run this again: finished stages are kept, and a training resumes."
        sys.stderr.write(f"{words}\n")
        return 130
    if error:
        sys.stderr.write(f"Error: {error}\n")
    return int(bool(error))


if __name__ == "__main__":
    sys.exit(main())
