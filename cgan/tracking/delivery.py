"""A run's records → MLflow: what each becomes there.

Sending again changes nothing, whatever was killed at whatever moment. The store's key of a metric is (run,
name, step, time, value), all of which stand in the records; files have names of their own; a run is found
by its key; pictures, the model and the numbers of an evaluation are looked up first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cgan.tracking.records import RUN, SENT, Record, append, read_info, read_records
from cgan.tracking.store import RUN_ID, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run

RUN_KEY_TAG = "cgan.run_key"
MODEL_NAME = "generator"
JUDGED = "quality/"
# Tags: a hash of all that a run's numbers depend on beside its generator; and why it is the best of its data.
MEASURED_WITH, BEST = "cgan.measured_with", "best"
WEIGHTS = "cgan.generator_sha256"  # also a tag: the hash of the generator's file


def deliver(client: MlflowClient, uri: str, folder: Path, patience_s: float) -> Run | None:
    """Send what waits in a run's folder: the run in MLflow; None where nothing waits.

    Raises TimeoutError where that takes longer than `patience_s`, else whatever MLflow raises.
    """
    from mlflow.entities import Param, RunTag

    until = time.monotonic() + patience_s

    def in_time() -> None:
        if time.monotonic() > until:
            raise TimeoutError("no answer in time")

    before, records, offset = read_records(folder)
    if not records:
        return None
    info = read_info(folder / RUN)
    experiment = experiment_id(client, uri, info["experiment"])
    in_time()
    runs = client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{info['run_key']}'")
    in_time()
    if not runs:  # a store that was lost, or another one, gets what was sent before, too
        before, records = [], before + records
    run = next(iter(runs), None) or client.create_run(
        experiment, records[0]["time_ms"], {RUN_KEY_TAG: info["run_key"]}, info["run_name"]
    )
    run_id = run.info.run_id
    if not runs and records[0]["kind"] != "start":  # the training's records are on another machine
        client.set_terminated(run_id)
    in_time()
    params = {k: v for record in records for k, v in record.get("params", {}).items()}
    tags = {k: v for record in records for k, v in record.get("tags", {}).items()}
    client.log_batch(
        run_id,
        # Another value is refused; one on which no result depends can have changed before a training resumed.
        params=[Param(k, v) for k, v in params.items() if k not in run.data.params],
        tags=[RunTag(k, v.replace(RUN_ID, run_id)) for k, v in tags.items()],
    )
    in_time()
    for record in records:
        _send(client, run_id, folder / "files" / record.get("file", ""), record)
        in_time()
    judged = any(key.startswith(JUDGED) for record in records for key in record.get("metrics", ()))
    model = _model(client, run) if judged else None
    client.log_batch(run_id, list(_metrics(before, records, run, model)))
    if alike := tags.get(MEASURED_WITH):
        _mark_best(client, experiment, alike)
    append(folder, SENT, offset=offset)
    return run


def _mark_best(client: MlflowClient, experiment: str, alike: str) -> None:
    """Say at the best of the runs that were measured alike why it is, and at no other."""
    key = f"{JUDGED}fid_judge"
    wanted = f"tags.`{MEASURED_WITH}` = '{alike}'"
    runs = client.search_runs([experiment], wanted, order_by=[f"metrics.`{key}` ASC"])
    ranked = [run for run in runs if key in run.data.metrics]
    different = [*by_generator(ranked).values()]
    distances = ", the next ".join(f"{run.data.metrics[key]:.3g}" for run in different[:2])
    why = f"lowest Fréchet distance of {len(different)} generators with these data and this judge: "
    why += distances
    for place, run in enumerate(ranked):
        if place == 0 and len(different) > 1 and run.data.tags.get(BEST) != why:
            client.set_tag(run.info.run_id, BEST, why)
        elif place and BEST in run.data.tags:
            client.delete_tag(run.info.run_id, BEST)


def by_generator(runs: Iterable[Run]) -> dict[str, Run]:
    """The first run of each generator, by the hash of its file: equal params train the same one again."""
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.data.tags.get(WEIGHTS, run.info.run_id), run)
    return first


def _metrics(
    before: list[Record], records: list[Record], run: Run, model: LoggedModel | None
) -> Iterator[Metric]:
    """The numbers; those of an evaluation for the model's page too. Left out is what a training repeats that
    was resumed, and what an evaluation found again, after a kill or on another machine."""
    from mlflow.entities import Metric

    seen = {(key, record["step"]) for record in before for key in record.get("metrics", ())}
    latest = dict(run.data.metrics)
    for record in records:
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


def _model(client: MlflowClient, run: Run) -> LoggedModel | None:
    """The run's, once there is one."""
    made_by = f"source_run_id = '{run.info.run_id}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], made_by)), None)


def _send_model(client: MlflowClient, run_id: str, folder: Path, record: Record) -> None:
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    tags = {key: value.replace(RUN_ID, run_id) for key, value in record["facts"].items()}
    model = _model(client, run) or client.create_logged_model(
        run.info.experiment_id, MODEL_NAME, run_id, tags, run.data.params, model_type="generator"
    )
    if model.status == "READY":
        return
    outputs = run.outputs.model_outputs if run.outputs else []
    if not any(output.model_id == model.model_id for output in outputs):  # MLflow takes it once
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, record["step"])])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
