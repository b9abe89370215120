"""The MLflow run of a training: opened, sent while it goes on, ended, reopened; and what waits, sent later.

All is written to the run's folder first (`cgan.tracking.records`). A training sends what is new at each
probe and at its end. Once that fails, it goes on without, and the stage record or `cgan track flush` sends
the rest.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgan.errors import CganError, Interrupted, TrackingError
from cgan.files import locked, md5_of, read_json, write_json
from cgan.params.sections import TrackingParams
from cgan.project import LOCK, RUN_REFERENCE, TRAIN_AGAIN, project_root
from cgan.tracking.delivery import Delivery
from cgan.tracking.records import (
    RECORDS,
    RESULT,
    Run,
    RunInfo,
    count_waiting,
    folder_of,
    tidy,
    waiting,
)
from cgan.tracking.store import (
    SQLITE,
    STORE,
    asking,
    experiment_name,
    prepare,
    reason_of,
    store_uri,
    without_credentials,
)

log = logging.getLogger(__name__)

PATIENCE_S = 4.0  # that a training waits for MLflow in all, or SHARE of its time where that is more
SHARE = 0.03
SENDING = "sending.lock"  # one process at a time sends a run's records
SOURCE, PATCH = "source", "patch.diff"  # where a run keeps what it was made from


class TrainingRun(Run):
    """A run that is sent to MLflow while it goes on, until that fails once, or takes too long."""

    def __init__(self, folder: Path, info: RunInfo, uri: str, *, system_metrics: bool) -> None:
        super().__init__(folder, info, resume=True)
        self.delivery = Delivery(folder, uri, project_root())
        self.system_metrics = system_metrics
        self._began, self._waited_s, self._ended = time.monotonic(), 0.0, False

    def send(self, step: int | None = None) -> None:
        if self.system_metrics and step is not None:
            self.log_metrics(system_load(), step)
        if self._ended:
            return
        try:
            with asking(), locked(self.folder / SENDING, wait=False) as alone:
                if alone:  # else `cgan track flush` is at it
                    self._deliver()
        except Exception as error:  # of MLflow, of what it imports, of a machine that is full
            self._ended = True
            log.warning(
                "MLflow cannot be used now (%s): the training goes on, and its records wait in %s. The "
                "stage record sends them, or `cgan track flush`.",
                *(reason_of(error), self.folder),
            )

    def _deliver(self) -> None:
        prepare(self.delivery.uri, self.delivery.root)
        began = time.monotonic()
        patience_s = max(PATIENCE_S, SHARE * (began - self._began)) - self._waited_s
        self.delivery.send(patience_s)
        self._waited_s += time.monotonic() - began


def system_load() -> dict[str, float]:
    """The machine's load since the last call, under the names that MLflow's pages know."""
    import psutil

    memory = psutil.virtual_memory()
    load = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
    }
    with contextlib.suppress(Exception):  # no GPU, or one that tells nothing
        import torch

        free, total = torch.cuda.mem_get_info()
        load["gpu_0_memory_usage_megabytes"] = (total - free) / 1e6
        load["gpu_0_utilization_percentage"] = torch.cuda.utilization()
    return {f"system/{name}": value for name, value in load.items()}


@contextlib.contextmanager
def training_run(
    folder: Path,
    name: str,
    tracking: TrackingParams,
    *,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    dataset: Mapping[str, Any],
    origin: Mapping[str, str],
) -> Iterator[TrainingRun]:
    """The run of a training, from its begin to its end. One that is in `folder` already goes on.

    `folder` is named by the training's fingerprint. `params` are flat. `dataset`: `name`, `path`, `sha256`
    and other facts about the data. `origin`: who asked for it, and for what. RUN_REFERENCE is written when
    the training succeeds; by it `reopen` finds the run again. Status: FINISHED, FAILED on an exception,
    KILLED on SIGTERM or Ctrl-C. Raises TrackingError when the store is away and `tracking.on_unreachable`
    is `fail`.
    """
    uri = store_uri(project_root())
    experiment = experiment_name(tracking.experiment)
    shown = without_credentials(uri)
    info = RunInfo(uuid.uuid4().hex, name, experiment, shown, dict(origin))
    if (folder / RESULT).is_file() and not _is_wanted(folder, origin):
        with locked(folder / SENDING):  # else a sender would go on in the new folder
            folder.rename(folder.with_name(f"{folder.name}-{RunInfo.load(folder).run_key[:8]}"))
    tidy(folder)
    run = TrainingRun(folder, info, uri, system_metrics=tracking.system_metrics)
    run.write("start")
    run.set_tags({**tags, **({"cgan.resumed": "true"} if run.resumed else {})})
    run.write("params", params={key: str(value) for key, value in params.items()})
    run.write("dataset", facts=dict(dataset))
    try:
        if tracking.on_unreachable == "fail":
            _require_store(folder)
        yield run
    except BaseException as error:
        killed = isinstance(error, Interrupted | KeyboardInterrupt)
        status = "KILLED" if killed else "FAILED"
        run.write("end", status=status, reason=f"{type(error).__name__}: {error}"[:1000])
        run.send()
        raise
    run.write("end", status="FINISHED")
    run.send()
    place = {"run_id": run.delivery.run_id, "experiment_id": run.delivery.experiment_id}
    write_json(RUN_REFERENCE, asdict(run.info) | run.result | place)
    shutil.copyfile(RUN_REFERENCE, folder / RESULT)


def _require_store(folder: Path) -> None:
    """Raises TrackingError unless MLflow takes what is recorded so far."""
    try:
        flush_one(project_root(), folder)
    except TrackingError as error:
        advice = "To train now and deliver later, set `tracking.on_unreachable: spool`."
        raise TrackingError(f"{error} {advice}") from None


def _is_wanted(folder: Path, origin: Mapping[str, str]) -> bool:
    """Is the finished training in this folder the one that is asked for now?

    DVC learns of a result after the stage has ended. If anything is killed before that, DVC starts the
    stage again, and the training is taken up at its last step. One that DVC knows is trained anew on
    purpose; and one for a sweep's trial or a DVC experiment has a run of its own, whoever trained the same
    before.
    """
    with contextlib.suppress(OSError):
        if md5_of(folder / RESULT) in LOCK.read_text(encoding="utf-8"):
            return False
    return _asked_by(RunInfo.load(folder).origin) == _asked_by(origin)


def _asked_by(origin: Mapping[str, str]) -> dict[str, str]:
    here = ("data", "commit", "dirty")
    return {k: v for k, v in origin.items() if k not in here and not k.startswith("prefect.")}


@contextlib.contextmanager
def reopen() -> Iterator[Run]:
    """The run that RUN_REFERENCE names, to add to it; its status stays. In the end all that waits of it is
    sent, or a warning says why not."""
    try:
        info = RunInfo.read(read_json(RUN_REFERENCE))
    except (KeyError, TypeError, ValueError):
        raise TrackingError(
            f"{RUN_REFERENCE}: names no MLflow run. Restore it (`dvc checkout`), or train: {TRAIN_AGAIN}."
        ) from None
    run = Run(folder_of(info.run_key), info, resume=False)
    try:
        yield run
    finally:
        run.write("added")
        shutil.copyfile(RUN_REFERENCE, run.folder / RESULT)  # elsewhere it is not the training's
        try:
            flush_one(project_root(), run.folder)
        except TrackingError as error:
            log.warning("%s", error)


def flush(root: Path) -> list[str]:
    """Send the records of every run that wait; a line for each. Raises TrackingError if some still wait."""
    lines, failures = [], []
    for folder in waiting(root):
        try:
            lines.append(flush_one(root, folder))
        except TrackingError as error:
            failures.append(str(error))
    if failures:
        raise TrackingError("\n".join(lines + failures))
    return lines


def flush_one(root: Path, folder: Path) -> str:
    """Send the records of one run and say so; empty where none wait. Raises TrackingError when that fails
    now."""
    left = count_waiting(folder)
    if not left:
        return ""
    info = RunInfo.load(folder)
    uri = info.tracking_uri  # the server of then, unless the environment names a store of today
    if os.environ.get(STORE) or uri.startswith(SQLITE):
        uri = store_uri(root)
    with asking(), locked(folder / SENDING):
        try:
            Delivery(folder, uri, root).send_all()
        except Exception as error:  # of MLflow, of what it imports, of a machine that is full
            raise TrackingError(
                f"{info.run_name}: MLflow at {without_credentials(uri)} cannot be used now "
                f"({reason_of(error)}); {left} records wait in {folder}. When it answers, run "
                f"`cgan track flush`. If it is gone for good, {STORE}=… cgan track flush delivers them "
                f"elsewhere, and rm '{folder / RECORDS}' drops them."
            ) from None
    return f"{info.run_name}: {left} records delivered to {without_credentials(uri)}"


def flush_run(run_key: str) -> str:
    """`flush_one` of a run that is known by its key."""
    return flush_one(project_root(), folder_of(run_key))


def made_for(tags: Mapping[str, str], reference: Path) -> bool:
    """Was the training in `reference` made with these tags? One that DVC's cache brought was made for
    something else, and its run is another's."""
    with contextlib.suppress(CganError):
        return tags.items() <= dict(read_json(reference).get("origin") or {}).items()
    return not tags


def user() -> str:
    """Who runs this; empty for a user that the container's passwd does not know."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


def run_context() -> dict[str, str]:
    """MLFLOW_RUN_CONTEXT, in which the flow names itself (`prefect.flow_run_id` and others)."""
    context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    return {str(key): str(value) for key, value in context.items()}
