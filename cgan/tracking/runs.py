"""The MLflow run of a training: opened, sent while it goes on, ended, reopened; and what waits, sent later.

All is written to the run's folder first. A training sends what is new at its begin, at each probe and at its
end. Once that fails, it goes on without, and the stage record or `cgan track flush` sends the rest.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgan.errors import Interrupted, TrackingError
from cgan.files import locked, md5_of, write_json
from cgan.params.sections import TrackingParams
from cgan.project import LOCK, RUN_REFERENCE, project_root
from cgan.tracking import records, store
from cgan.tracking.delivery import deliver
from cgan.tracking.records import RunInfo
from cgan.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

log = logging.getLogger(__name__)

# What a training waits for MLflow: in all, as a share of a long one, for one answer.
PATIENCE_S, SHARE, ANSWER_S = 2.5, 0.03, 2
SENDING = "sending.lock"  # one process at a time sends a run's records
SOURCE, PATCH = "source", "patch.diff"  # where a run keeps what it was made from
DIGITS, SHOWN = 6, 256  # of a metric: what float32 has; pixels that MLflow's page has for a picture

Save = Callable[[Path], Any]


class Run(Tracker):
    """A Tracker that appends to a run's records, and sends them until that fails once, or takes too long. It
    never raises: on a full disk records are lost, no more. `info` is the one that the folder began with,
    where it has one."""

    def __init__(self, folder: Path, info: RunInfo, *, system_metrics: bool = False) -> None:
        self.folder = folder
        self.result: dict[str, Any] = {}  # further facts for the file that names the run
        self.in_mlflow: MlflowRun | None = None
        self._system_metrics, self.is_live, self._is_whole = system_metrics, True, True
        self._began, self._waited_s = time.monotonic(), 0.0
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.info = records.read_info(folder / records.RUN)
        except TrackingError:  # none yet, or damaged
            self.info = info
            write_json(folder / records.RUN, info)

    def write(self, kind: str, /, save: Save | None = None, file: str = "", **content: Any) -> None:
        """Append one record, after `save` has written its file, or folder, of this name."""
        try:
            if save:
                place = self.folder / "files" / uuid.uuid4().hex[:12]
                place.mkdir(parents=True)
                save(place / file)
                content["file"] = f"{place.name}/{file}"
            records.append(self.folder, kind, **content)
        except OSError as error:
            if self._is_whole:
                log.warning("%s: records of this run are lost from here on: %s", self.folder, error)
            self._is_whole = False

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """RUN_ID in a value becomes the id that MLflow gives the run."""
        self.write("tags", tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values are rounded to DIGITS. One that is not finite becomes a tag, since charts cannot show it."""
        values = {key: float(f"{value:.{DIGITS}g}") for key, value in metrics.items()}
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        self.write("metrics", step=step, metrics=finite)
        for key in values.keys() - finite:
            self.set_tags({f"not_finite.{key}": f"{values[key]} at step {step}"})

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        scale = max(1, SHOWN // max(image.shape[:2]))
        shown = Image.fromarray(image.repeat(scale, 0).repeat(scale, 1))
        self.write("image", shown.save, "shown.png", name=name, step=step)

    def log_file(self, path: Path, folder: str = "") -> None:
        """A finished file; it is copied before the call returns."""
        self.write("file", lambda to: shutil.copyfile(path, to), path.name, folder=folder)

    def log_model(self, save: Save, step: int, facts: Mapping[str, str]) -> None:
        """`save` writes the folder that MLflow is to keep as the run's model; `facts` become its tags."""
        self.write("model", save, "model", step=step, facts=dict(facts))

    def send(self, step: int) -> None:
        if self._system_metrics:
            self.log_metrics(system_load(), step)
        self.send_now()

    def send_now(self) -> None:
        if not self.is_live:
            return
        began, is_first = time.monotonic(), self.in_mlflow is None
        patience_s = PATIENCE_S + SHARE * (began - self._began) - self._waited_s
        try:
            self.in_mlflow = send(self.folder, patience_s) or self.in_mlflow
        except TrackingError as error:
            self.is_live = False
            log.warning("%s The training goes on.", error)
        if not is_first:  # which loads MLflow, and may make a store
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
) -> Iterator[Run]:
    """The run of a training, from its begin to its end. One that is in `folder` already goes on.

    `folder` is named by the training's fingerprint. `params` are flat. `dataset`: `name`, `path`, `sha256`
    and other facts. `origin`: who asked for it, and for what. Status: FINISHED, and RUN_REFERENCE is written,
    by which `reopen` finds the run; FAILED on an exception; KILLED on SIGTERM or Ctrl-C.
    """
    info: RunInfo = {
        "run_key": uuid.uuid4().hex,
        "run_name": name,
        "experiment": store.experiment_name(tracking.experiment),
        "tracking_uri": store.without_credentials(store.store_uri(project_root())),
        "origin": dict(origin),
    }
    # DVC learns of a result after the stage has ended. If it was killed before, it starts the stage again,
    # and the training is taken up at its last step. One that it knows is trained anew on purpose.
    result = folder / records.RESULT
    if result.is_file() and LOCK.is_file() and md5_of(result) in LOCK.read_text(encoding="utf-8"):
        with locked(folder / SENDING):  # else a sender would go on in the new folder
            folder.rename(f"{folder}-{info['run_key'][:8]}")
    resumed = {"cgan.resumed": "true"} if (folder / records.RECORDS).exists() else {}
    run = Run(folder, info, system_metrics=tracking.system_metrics)
    run.write("start", params={k: str(v) for k, v in params.items()}, tags={**tags, **resumed})
    run.write("dataset", facts=dict(dataset))
    run.send_now()
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        why = f"{type(error).__name__}: {error}"[:1000]
        run.write("end", status=status, tags={"cgan.ended_by": why})
        run.send_now()
        raise
    run.write("end", status="FINISHED")
    run.send_now()
    run_info = run.in_mlflow and run.in_mlflow.info
    place = {name: run_info and getattr(run_info, name) for name in ("experiment_id", "run_id")}
    write_json(RUN_REFERENCE, run.info | run.result | place)
    shutil.copyfile(RUN_REFERENCE, result)


@contextlib.contextmanager
def reopen() -> Iterator[Run]:
    """The run that RUN_REFERENCE names, to add to it; its status stays. In the end all that waits of it is
    sent, or a warning says why not."""
    info = records.read_info(RUN_REFERENCE)
    run = Run(records.folder_of(info["run_key"]), info)
    try:
        yield run
    finally:
        try:
            send(run.folder)
            # MLflow has it all, and DVC the result. Never half a folder: a training would go on there.
            with locked(records.training_lock(run.folder), wait=False) as is_free:
                if is_free:
                    shutil.rmtree(run.folder.rename(f"{run.folder}-done"))
        except TrackingError as error:
            log.warning("%s", error)


def flush() -> list[str]:
    """Send the records of every run that wait; a line for each. Raises TrackingError if some still wait."""
    sent, failed = [], []
    for folder in records.waiting():
        try:
            send(folder)
            sent.append(f"{folder}: delivered")
        except TrackingError as error:
            failed.append(str(error))
    if failed:
        raise TrackingError("\n".join(sent + failed))
    return sent


def send(folder: Path, patience_s: float = math.inf) -> MlflowRun | None:
    """Send what waits of a run, if anything does; with a patience not where another process is at it. Raises
    TrackingError when that fails now."""
    if not (unsent := len(records.read_records(folder)[1])):
        return None
    info = records.read_info(folder / records.RUN)
    uri = info["tracking_uri"]  # the server of then, unless the environment names a store of today
    if os.environ.get(store.STORE) or uri.startswith(store.SQLITE):
        uri = store.store_uri(project_root())
    waits = patience_s == math.inf
    try:
        with locked(folder / SENDING, wait=waits) as alone:
            client = store.open_store(uri, *[] if waits else [ANSWER_S])
            return deliver(client, uri, folder, patience_s) if alone else None
    except Exception as error:  # of MLflow, of what it imports, of a machine that is full
        raise TrackingError(
            f"{info['run_name']}: MLflow at {store.without_credentials(uri)} cannot be used now "
            f"({store.reason_of(error)}): {unsent} records wait in {folder}. `cgan track flush` sends them "
            f"when it answers, or elsewhere by another {store.STORE}."
        ) from None
