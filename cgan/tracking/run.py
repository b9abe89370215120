"""The MLflow run of a stage: how it is opened, reopened and ended.

A training writes its records into a journal (`cgan.tracking.journal`) and never talks to a server. A
child process, the sender (`cgan.tracking.sender`), delivers the journal. It runs at low priority, and a
server that is dead, slow or hanging delays nobody but the sender. What it cannot deliver waits for
`cgan track flush`.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.metadata
import json
import logging
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cgan import git
from cgan.errors import CganError, Interrupted, TrackingError
from cgan.files import md5_of, write_json
from cgan.params.editing import recipe_in_words
from cgan.params.sections import Params, TrainParams, flatten
from cgan.project import project_root
from cgan.tracking.journal import (
    JournalTracker,
    RunHeader,
    is_finished,
    journals,
)
from cgan.tracking.sender import Sender
from cgan.tracking.store import experiment_name, store_uri, without_credentials
from cgan.tracking.tracker import NullTracker, Tracker

log = logging.getLogger(__name__)

FINISH_S = 20.0
FINISH_AFTER_SIGNAL_S = 5.0
SOURCE, PATCH = "source", "patch.diff"  # where a run keeps what it was made from


@contextlib.contextmanager
def training_run(
    params: Params,
    fitted: TrainParams,
    run_key: str,
    *,
    tags: Mapping[str, str],
    dataset: Mapping[str, Any],
    reference: Path,
    early: Sender | None = None,
) -> Iterator[JournalTracker]:
    """The run of a training: its journal is open and its sender runs until the training ends.

    `fitted`: `params.train` with a number for each `auto`. `tags`: facts the caller knows (device, data
    hash). `dataset`: `name`, `path`, `sha256`, `rows` and other facts about the data. `reference` is written
    when the training succeeds: a JSON file by which `reopen` finds the run again. `early`: what
    `start_sender` returned. Status: FINISHED, FAILED on an exception, KILLED on SIGTERM or Ctrl-C. Raises
    TrackingError when the store is unusable by configuration, or away and `tracking.on_unreachable` is
    `fail`.
    """
    root = project_root()
    uri = store_uri(root)
    header = RunHeader(
        run_key=run_key,
        run_name=_run_name(params),
        experiment=experiment_name(params.tracking.experiment),
        tracking_uri=without_credentials(uri),
    )
    tracker = _open_journal(root, header, resume=True)
    tracker.write("start", pid=os.getpid())
    source = _source()
    tracker.origin = _origin(dataset, source)
    tracker.set_tags({**_facts_of_here(source), **_facts_of_csv(dataset), **tags})
    if tracker.resumed:
        tracker.set_tags({"cgan.resumed": "true"})
    _log_source(tracker, source)
    # These are read after the training: they may change before it is resumed, and MLflow refuses that.
    later = {"gate", "reevaluate", "sweep", "tracking"}
    as_run = params.model_dump(by_alias=True, exclude=later)
    as_run["train"] = fitted.model_dump()
    tracker.log_params(flatten(as_run))
    tracker.log_dataset(dataset)
    sender = _sender(tracker, uri, early)
    patience_s = FINISH_S
    try:
        if params.tracking.on_unreachable == "fail":
            sender.require_connection(without_credentials(uri))
        with _sigterm_raises(), _system_metrics(tracker, on=params.tracking.system_metrics):
            yield tracker
    except BaseException as error:
        status = _status_after(error)
        patience_s = FINISH_AFTER_SIGNAL_S if status == "KILLED" else FINISH_S
        tracker.write("end", status=status, reason=f"{type(error).__name__}: {error}"[:1000])
        tracker.close()
        sender.finish(patience_s)
        raise
    tracker.write("end", status="FINISHED")
    tracker.close()
    write_json(
        reference,
        {**asdict(tracker.header), **sender.finish(patience_s), "origin": tracker.origin},
    )


@contextlib.contextmanager
def reopen(reference: Path) -> Iterator[Tracker]:
    """The run that `training_run` wrote down in `reference`, to add to it; its status stays.

    Without a usable file the records are dropped.
    """
    try:
        known = json.loads(reference.read_text(encoding="utf-8"))
        header = RunHeader(**{field.name: known[field.name] for field in fields(RunHeader)})
    except FileNotFoundError:
        yield NullTracker()
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s names no MLflow run (%s): nothing is recorded there.", reference, error)
        yield NullTracker()
        return
    tracker = _open_journal(project_root(), header, resume=False)
    sender = _sender(tracker, _uri_of(header))
    try:
        yield tracker
    finally:
        tracker.write("added")
        tracker.close()
        sender.finish(FINISH_S)


def made_for(tags: Mapping[str, str], reference: Path) -> bool:
    """Was the training in `reference` made with these tags? One that DVC's cache brought was made for
    something else, and its run is another's."""
    try:
        origin = json.loads(reference.read_text(encoding="utf-8"))["origin"]
        return bool(tags.items() <= origin.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return not tags


def deliver_again(
    run: Mapping[str, str],
    reference: Path,
    early: Sender | None = None,
    made: Mapping[str, str] | None = None,
) -> None:
    """End the run of a training that was finished and then killed, and write `reference`.

    `run`: the fields of its RunHeader; `made`: its `origin`, if it is known. What its journal still holds is
    delivered.
    """
    header = RunHeader(**run)
    tracker = _open_journal(project_root(), header, resume=True)
    sender = _sender(tracker, _uri_of(header), early)
    if is_finished(tracker.folder):  # or its journal is gone, for all was delivered
        tracker.write("added")
    else:
        tracker.write("end", status="FINISHED")
    tracker.close()
    found = {**asdict(header), **sender.finish(FINISH_S)}
    write_json(reference, found | ({"origin": dict(made)} if made else {}))


def start_sender() -> Sender | None:
    """The sender of a run that will be opened soon. It imports MLflow while the caller imports torch: each
    takes a core for more than a second, and the training needs both. None where the store is unusable by
    configuration or the machine is full, which whoever opens the run says."""
    try:
        return Sender(store_uri(project_root()))
    except (CganError, OSError):
        return None


def _sender(tracker: JournalTracker, uri: str, early: Sender | None = None) -> Sender:
    """The one that was started early, if it was started for this store; or one of now."""
    sender = early if early and early.uri == uri else Sender(uri)
    sender.deliver(tracker.folder, tracker.header)
    return sender


def _uri_of(header: RunHeader) -> str:
    """Where a run's later records go: the store of today's environment, or the server of then."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not header.tracking_uri.startswith("sqlite:"):
        return header.tracking_uri
    return store_uri(project_root())


def _open_journal(root: Path, header: RunHeader, *, resume: bool) -> JournalTracker:
    folder = journals(root) / header.run_key
    try:
        return JournalTracker(folder, header, resume=resume)
    except OSError as error:
        raise TrackingError(
            f"{folder}: cannot be written ({error.strerror}). Give the project's folder `.cgan` "
            "write permission and space."
        ) from None


def _run_name(params: Params) -> str:
    """`lr 0.001 · default · seed 1 · 26 Nov 17:30`: what tells it from others stands in front, for tables
    cut names short."""
    parts = [
        recipe_in_words(params.train),
        f"seed {params.train.seed}",
        os.environ.get("DVC_EXP_NAME"),
    ]
    return " · ".join([*filter(None, parts), time.strftime("%d %b %H:%M")])


def _facts_of_here(source: git.Source | None) -> dict[str, str]:
    """User, git, DVC, Prefect, torch and machine, as tags. What is unknown is left out."""
    tags = {
        "mlflow.source.name": "cgan.stages.train",
        "mlflow.source.type": "LOCAL",
        "torch.version": importlib.metadata.version("torch"),
        "python.version": platform.python_version(),
        "machine.cpu": _cpu(),
        "machine.cores": str(os.cpu_count()),
        "machine.omp_num_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        **_git_tags(source),
    }
    if who := user():
        tags["mlflow.user"] = who
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.exp_name"] = name
    return tags | run_context()


def user() -> str:
    """Who runs this; empty for a user that the container's passwd does not know."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


def run_context() -> dict[str, str]:
    """MLFLOW_RUN_CONTEXT, in which the flow names itself (`prefect.flow_run_id` and others)."""
    with contextlib.suppress(ValueError, AttributeError):
        context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
        return {str(key): str(value) for key, value in context.items()}
    return {}


def _cpu() -> str:
    """The processor's model name: different models round differently."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _facts_of_csv(dataset: Mapping[str, Any]) -> dict[str, str]:
    """The CSV's hashes: ours, and the one by which DVC's cache keeps it."""
    tags = {"cgan.csv_sha256": str(dataset["sha256"])}
    with contextlib.suppress(OSError):
        tags["dvc.csv_md5"] = md5_of(str(dataset["path"]))
    return tags


def _source() -> git.Source | None:
    try:
        return git.source()
    except git.GitError:  # no repository, or none that has a commit
        return None


def _origin(dataset: Mapping[str, Any], source: git.Source | None) -> dict[str, str]:
    """What a training was made from: data, commit, a DVC experiment or a flow that asked for it."""
    made = {"data": str(dataset["name"])}
    if source:
        made |= {"commit": source.commit, "dirty": str(bool(source.changed)).lower()}
    if name := os.environ.get("DVC_EXP_NAME"):
        made["dvc.exp_name"] = name
    return made | run_context()


def _git_tags(source: git.Source | None) -> dict[str, str]:
    if source is None:
        return {}
    tags = {
        "mlflow.source.git.commit": source.commit,
        "mlflow.source.git.branch": source.branch,
        "git.dirty": str(bool(source.changed)).lower(),
    }
    if source.changed:
        tags["git.changed_files"] = ", ".join(source.changed)[:1000]
    return tags


def _log_source(tracker: JournalTracker, source: git.Source | None) -> None:
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        if Path(name).is_file():
            tracker.log_file(Path(name), SOURCE)
    if source is None or not source.changed:
        return
    if source.patch is None:
        log.warning(
            "The changes since commit %.10s do not travel with the run: %s.",
            source.commit,
            source.why_no_patch,
        )
        tracker.set_tags({"git.no_patch": source.why_no_patch})
        return
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        patch = Path(folder) / PATCH
        patch.write_bytes(source.patch)
        tracker.log_file(patch, SOURCE)


def _status_after(error: BaseException) -> str:
    codes = (128 + signal.SIGTERM, 128 + signal.SIGINT)
    asked_to_stop = (
        isinstance(error, KeyboardInterrupt)
        or (isinstance(error, SystemExit) and error.code in codes)
        or isinstance(error, Interrupted)
    )
    return "KILLED" if asked_to_stop else "FAILED"


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the block as SystemExit(143), unless the caller has a handler of its own."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(number: int, _frame: Any) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _system_metrics(tracker: JournalTracker, *, on: bool) -> Iterator[None]:
    """The machine's load as `system/…`, every 2 s, after two minutes every 10 s."""
    if not on:
        yield
        return
    import psutil

    stop = threading.Event()
    process = psutil.Process()

    def sample() -> None:
        began, step = time.monotonic(), tracker.last_step("system/")
        psutil.cpu_percent()
        process.cpu_percent()
        while not stop.wait(2.0 if time.monotonic() - began < 120 else 10.0):
            step += 1
            memory = psutil.virtual_memory()
            tracker.log_metrics(
                {
                    "system/cpu_utilization_percentage": psutil.cpu_percent(),
                    "system/system_memory_usage_percentage": memory.percent,
                    "system/system_memory_usage_megabytes": memory.used / 1e6,
                    "system/training_cpu_percentage": process.cpu_percent(),
                    "system/training_memory_megabytes": process.memory_info().rss / 1e6,
                    **_gpu_metrics(),
                },
                step,
            )

    thread = threading.Thread(target=sample, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=1)


def _gpu_metrics() -> dict[str, float]:
    """Through NVML and not torch: a CUDA call of another thread would break a graph's capture."""
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError:
        return {}
    metrics: dict[str, float] = {}
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            load = pynvml.nvmlDeviceGetUtilizationRates(device)
            metrics[f"system/gpu_{index}_memory_usage_megabytes"] = memory.used / 1e6
            metrics[f"system/gpu_{index}_memory_usage_percentage"] = (
                100 * memory.used / memory.total
            )
            metrics[f"system/gpu_{index}_utilization_percentage"] = load.gpu
    return metrics
