"""The MLflow run of a training: opened, sent while it goes on, ended, reopened; and what waits, sent later.

All is written to the run's folder first. A training sends what is new at its begin, at each probe and at its
end. Once that fails, it goes on without, and the stage record or `cgan track flush` sends the rest.

Sending again changes nothing, whatever was killed at whatever moment. The store's key of a metric is (run,
name, step, time, value), all of which stand in the records; files have names of their own; a run is found
by its key; pictures, the model and the numbers of an evaluation are looked up first.
"""

from __future__ import annotations

import contextlib
import json
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
from cgan.hosts import without_credentials
from cgan.project import LOCK, RUN_REFERENCE, project_root
from cgan.tracking import records, store
from cgan.tracking.records import Record, RunInfo
from cgan.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as MlflowRun

log = logging.getLogger(__name__)

# What a training waits for MLflow: in all, as a share of a long one, for one answer.
PATIENCE_S, SHARE, ANSWER_S = 2.5, 0.03, 2
SENDING = "sending.lock"  # one process at a time sends a run's records
SOURCE, PATCH = "source", "patch.diff"  # where a run keeps what it was made from
DIGITS, SHOWN = 6, 256  # of a metric: what float32 has; pixels that MLflow's page has for a picture
MODEL_NAME, JUDGED, DISTANCE = "generator", "quality/", "quality/fid_judge"
# Tags: the hash of the generator's file; of all else that a run's numbers depend on; why it is the best.
RUN_KEY_TAG, WEIGHTS = "cgan.run_key", "cgan.generator_sha256"
MEASURED_WITH = "cgan.measured_with"

Save = Callable[[Path], Any]


class Run(Tracker):
    """A Tracker that appends to a run's records, and sends them until that fails once, or takes too long. It
    never raises: on a full disk records are lost, no more. The `info` that the folder has counts more."""

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self.folder, self.is_live, self._is_whole = folder, True, True
        self.in_mlflow: MlflowRun | None = None
        self.load: Callable[[], Mapping[str, float]] | None = None  # the machine's
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

    def send(self, step: int | None = None) -> None:
        """With a step, that has the machine's load, too, where that is wanted."""
        if self.load and step is not None:
            self.log_metrics(self.load(), step)
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


@contextlib.contextmanager
def training_run(
    folder: Path,
    name: str,
    experiment: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    dataset: Mapping[str, Any],
    origin: Mapping[str, str],
) -> Iterator[Run]:
    """The run of a training, from its begin to its end. One that is in `folder` already goes on. Where it is
    FINISHED, RUN_REFERENCE is written, by which `reopen` finds the run. `params` are flat; `dataset` has at
    least `name`, `path` and `sha256`; `origin`: who asked for the training, and for what."""
    info: RunInfo = {
        "run_key": uuid.uuid4().hex,
        "run_name": name,
        "experiment": store.experiment_name(experiment),
        "tracking_uri": without_credentials(store.store_uri(project_root())),
        "origin": dict(origin),
    }
    # DVC learns of a result after the stage has ended. If it was killed before, it starts the stage again,
    # and the training is taken up at its last step. One that it knows is trained anew on purpose.
    info_file = folder / records.RUN
    if (
        info_file.is_file()
        and LOCK.is_file()
        and md5_of(info_file) in LOCK.read_text(encoding="utf-8")
    ):
        with locked(folder / SENDING):  # else a sender would go on in the new folder
            folder.rename(f"{folder}-{info['run_key'][:8]}")
    resumed = {"cgan.resumed": "true"} if (folder / records.RECORDS).exists() else {}
    run = Run(folder, info)
    run.write("start", params={k: str(v) for k, v in params.items()}, tags={**tags, **resumed})
    run.write("dataset", facts=dict(dataset))
    run.send()
    end: dict[str, Any] = {"status": "FINISHED"}
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        why = f"{type(error).__name__}: {error}"[:1000]
        end = {"status": status, "tags": {"cgan.ended_by": why}}
        raise
    finally:
        run.write("end", **end)
        run.send()
    entity = run.in_mlflow and run.in_mlflow.info
    place = {name: entity and getattr(entity, name) for name in ("experiment_id", "run_id")}
    for path in (RUN_REFERENCE, info_file):  # of which DVC keeps one
        write_json(path, run.info | place)


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
    for path in sorted(records.runs().glob(f"*/{records.RECORDS}")):
        try:
            if send(path.parent):
                sent.append(f"{path.parent}: delivered")
        except TrackingError as error:
            failed.append(str(error))
    if failed:
        raise TrackingError("\n".join(sent + failed))
    return sent


def send(folder: Path, patience_s: float = math.inf) -> MlflowRun | None:
    """Send what waits of a run: the run in MLflow; None where nothing waits. With a patience, not where
    another process is at it. Raises TrackingError when that fails, or takes too long, now."""
    if not (unsent := len(records.read_records(folder)[1])):
        return None
    info = records.read_info(folder / records.RUN)
    uri = info["tracking_uri"]  # the server of then, unless the environment names a store of today
    if os.environ.get(store.STORE) or uri.startswith(store.SQLITE):
        uri = store.store_uri(project_root())
    waits = patience_s == math.inf
    try:
        with locked(folder / SENDING, wait=waits) as alone:
            client = store.open_store(uri, store.LONG_ANSWER_S if waits else ANSWER_S)
            return _deliver(client, folder, info, time.monotonic() + patience_s) if alone else None
    except Exception as error:  # of MLflow, of what it imports, of a machine that is full
        raise TrackingError(
            f"{info['run_name']}: MLflow at {without_credentials(uri)} cannot be used now "
            f"({store.reason_of(error)}): {unsent} records wait in {folder}. `cgan track flush` sends them "
            f"when it answers, or elsewhere by another {store.STORE}."
        ) from None


def _deliver(client: MlflowClient, folder: Path, info: RunInfo, until: float) -> MlflowRun | None:
    from mlflow.entities import Param, RunTag

    def in_time() -> None:
        if time.monotonic() > until:
            raise TimeoutError("no answer in time")

    before, unsent, offset = records.read_records(folder)
    if not unsent:
        return None
    experiment, key = store.experiment_id(client, info["experiment"]), info["run_key"]
    in_time()
    run = next(iter(client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{key}'")), None)
    in_time()
    if not run:  # a store that was lost, or another one, gets what was sent before, too
        before, unsent = [], before + unsent
        began, tag = unsent[0]["time_ms"], {RUN_KEY_TAG: key}
        run = client.create_run(experiment, began, tag, info["run_name"])
        if unsent[0]["kind"] != "start":  # the training's records are on another machine
            client.set_terminated(run.info.run_id)
        in_time()
    run_id = run.info.run_id
    params = {k: v for record in unsent for k, v in record.get("params", {}).items()}
    tags = {k: v for record in unsent for k, v in record.get("tags", {}).items()}
    client.log_batch(
        run_id,
        # Another value is refused; one on which no result depends can have changed before a training resumed.
        params=[Param(k, v) for k, v in params.items() if k not in run.data.params],
        tags=[RunTag(k, v.replace(store.RUN_ID, run_id)) for k, v in tags.items()],
    )
    in_time()
    for record in unsent:
        _send(client, run_id, folder / "files" / record.get("file", ""), record)
        in_time()
    judged = any(key.startswith(JUDGED) for record in unsent for key in record.get("metrics", ()))
    model = model_of(client, run) if judged else None
    client.log_batch(run_id, list(_metrics(before, unsent, run, model)))
    records.append(folder, records.SENT, offset=offset)
    return run


def _metrics(
    before: list[Record], unsent: list[Record], run: MlflowRun, model: LoggedModel | None
) -> Iterator[Metric]:
    """The numbers; those of an evaluation for the model's page too. Left out is what a training repeats that
    was resumed, and what an evaluation found again, after a kill or on another machine."""
    from mlflow.entities import Metric

    seen = {(key, record["step"]) for record in before for key in record.get("metrics", ())}
    latest = dict(run.data.metrics)
    for record in unsent:
        for key, value in record.get("metrics", {}).items():
            is_judged, at = key.startswith(JUDGED), (key, record["step"])
            if latest.get(key) != value if is_judged else at not in seen:
                place = model.model_id if model and is_judged else None
                yield Metric(key, value, record["time_ms"], record["step"], model_id=place)
            seen.add(at)
            latest[key] = value


def _send(client: MlflowClient, run_id: str, path: Path, record: Record) -> None:
    """What a record is besides numbers, params and tags; `path`: its file."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    match record["kind"]:
        case "start":
            client.update_run(run_id, status="RUNNING")
        case "dataset":
            facts = record["facts"]
            source, profile = json.dumps({"uri": facts["path"]}), json.dumps(facts)
            data = Dataset(facts["name"], facts["sha256"][:12], "local", source, profile=profile)
            context = InputTag("mlflow.data.context", "training")
            client.log_inputs(run_id, [DatasetInput(data, [context])])
        case "image":
            name, step = record["name"], record["step"]
            # MLflow ends the name of each at random.
            mark = f"{name.rpartition('/')[2]}+step+{step}+"
            if not any(mark in file.path for file in client.list_artifacts(run_id, "images")):
                with Image.open(path) as image:
                    client.log_image(run_id, image, None, name, step, record["time_ms"])
        case "file":
            client.log_artifact(run_id, str(path), record["folder"] or None)
        case "model":
            _send_model(client, run_id, path, record)
        case "end":
            client.set_terminated(run_id, record["status"], record["time_ms"])


def model_of(client: MlflowClient, run: MlflowRun) -> LoggedModel | None:
    """The run's, once there is one."""
    made_by = f"source_run_id = '{run.info.run_id}' AND name = '{MODEL_NAME}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], made_by)), None)


def _send_model(client: MlflowClient, run_id: str, folder: Path, record: Record) -> None:
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    tags = {key: value.replace(store.RUN_ID, run_id) for key, value in record["facts"].items()}
    model = model_of(client, run) or client.create_logged_model(
        run.info.experiment_id, MODEL_NAME, run_id, tags, run.data.params, model_type="generator"
    )
    if model.status == "READY":
        return
    outputs = run.outputs.model_outputs if run.outputs else []
    if not any(output.model_id == model.model_id for output in outputs):  # MLflow takes it once
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, record["step"])])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")


def measured_alike(client: MlflowClient, experiment: str, alike: str) -> dict[str, list[MlflowRun]]:
    """The runs of each generator, the best first, by the hash of its file: equal params train it again."""
    wanted = f"tags.`{MEASURED_WITH}` = '{alike}'"
    runs: dict[str, list[MlflowRun]] = {}
    for run in client.search_runs([experiment], wanted, order_by=[f"metrics.`{DISTANCE}` ASC"]):
        if DISTANCE in run.data.metrics:
            runs.setdefault(run.data.tags.get(WEIGHTS, run.info.run_id), []).append(run)
    return runs
