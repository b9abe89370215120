"""The MLflow run of a training: found by its key or made, and completed.

What the run has is asked for first, so that nothing is in it twice, whatever was killed at whatever moment:
the steps of a metric, the model. A file overwrites its earlier copy.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from cgan.base.errors import TrackingError
from cgan.base.files import read_json
from cgan.base.hosts import without_credentials
from cgan.pipeline.project import project_root
from cgan.pipeline.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as MlflowRun

MODEL_NAME = "generator"
BATCH = 1000  # metrics that MLflow takes in one call

Point = tuple[str, float, int, int]  # of a metric: name, value, step, time in ms


class TrainingRecord(TypedDict, total=False):
    """The content of models/training.json: each fact from the moment at which it is known."""

    run_key: str
    run_name: str
    experiment: str
    began_ms: int
    ended_ms: int
    params: dict[str, Any]  # flat
    tags: dict[str, str]
    dataset: dict[str, Any]  # at least name, path and sha256
    training_s: float  # where it was trained in one go


def read_training(path: Path) -> TrainingRecord:
    """The record of a training. Raises CganError for a file that is missing or damaged."""
    return cast("TrainingRecord", read_json(path))


class TrackedRun:
    """`mlflow_run`: MLflow's run as it was found or made. `location`: where it is.

    `training`: at least run_key, run_name, experiment and began_ms. Methods raise whatever MLflow raises."""

    def __init__(self, client: MlflowClient, training: TrainingRecord) -> None:
        experiment = store.experiment_id(client, training["experiment"])
        key = training["run_key"]
        with store.store_locked():  # two at once find one run
            found = client.search_runs([experiment], f"tags.`{store.RUN_KEY_TAG}` = '{key}'")
            tags, name = {store.RUN_KEY_TAG: key}, training["run_name"]
            self.mlflow_run = next(iter(found), None) or client.create_run(
                experiment, training["began_ms"], tags, name
            )
        self.client = client
        self.training = training
        self.run_id = self.mlflow_run.info.run_id
        self.location = {
            "run_id": self.run_id,
            "experiment_id": self.mlflow_run.info.experiment_id,
            "tracking_uri": without_credentials(str(client.tracking_uri)),
        }
        self._steps: dict[str, set[int]] = {}

    def log_inputs(self, tags: Mapping[str, str]) -> None:
        """Log params, the tags of `training` and these, and the dataset."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        recorded = self.mlflow_run.data.params
        # MLflow refuses to change a param; one that changes no result may have another value by now.
        params = self.training["params"].items()
        new = [Param(key, str(value)) for key, value in params if key not in recorded]
        self.client.log_batch(self.run_id, params=new)
        self.set_tags(self.training["tags"] | dict(tags))
        facts = self.training["dataset"]
        source, profile = json.dumps({"uri": facts["path"]}), json.dumps(facts)
        data = Dataset(facts["name"], facts["sha256"][:12], "local", source, profile=profile)
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(data, [context])])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in tags.items()])

    def log_metrics(self, points: Iterable[Point]) -> None:
        """Log each step of a series once."""
        from mlflow.entities import Metric

        metrics = list[Metric]()
        for key, value, step, time_ms in points:
            if key not in self._steps:
                history = self.client.get_metric_history(self.run_id, key)
                self._steps[key] = {point.step for point in history}
            if step not in self._steps[key]:
                metrics.append(Metric(key, value, time_ms, step))
                self._steps[key].add(step)
        self._log_batches(metrics)

    def log_final_metrics(self, numbers: Mapping[str, float]) -> None:
        """Log single numbers that have changed, also on the run's logged model."""
        from mlflow.entities import Metric

        model = model_of(self.client, self.mlflow_run)
        model_id = model.model_id if model else None
        known = self.mlflow_run.data.metrics
        now_ms = time.time_ns() // 1_000_000
        # At step 0: MLflow draws a single number of a later step as a line chart of one dot.
        metrics = [
            Metric(key, value, now_ms, step=0, model_id=model_id)
            for key, value in numbers.items()
            if known.get(key) != value
        ]
        self._log_batches(metrics)

    def _log_batches(self, metrics: Sequence[Metric]) -> None:
        """Log the finite ones: charts can show no others."""
        finite = [metric for metric in metrics if math.isfinite(metric.value)]
        for start in range(0, len(finite), BATCH):
            self.client.log_batch(self.run_id, finite[start : start + BATCH])

    def log_files(self, paths: Iterable[Path], folder: str = "") -> None:
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def log_model(self, save: Callable[[Path], Any], step: int, tags: Mapping[str, str]) -> None:
        """`save` writes the folder that MLflow is to keep as the run's model."""
        from mlflow.entities import LoggedModelOutput

        run = self.client.get_run(self.run_id)
        model = model_of(self.client, run) or self.client.create_logged_model(
            run.info.experiment_id,
            MODEL_NAME,
            self.run_id,
            dict(tags),
            run.data.params,
            model_type="generator",
        )
        if model.status == "READY":
            return
        outputs = run.outputs.model_outputs if run.outputs else []
        # MLflow accepts it only once.
        if not any(output.model_id == model.model_id for output in outputs):
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step)])
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            save(Path(folder, "model"))
            self.client.log_model_artifacts(model.model_id, f"{folder}/model")
        self.client.finalize_logged_model(model.model_id, "READY")


def model_of(client: MlflowClient, run: MlflowRun) -> LoggedModel | None:
    """The run's logged model, or None."""
    made_by = f"source_run_id = '{run.info.run_id}' AND name = '{MODEL_NAME}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], made_by)), None)


@contextlib.contextmanager
def open_run(training: TrainingRecord, command: str = "dvc repro") -> Iterator[TrackedRun]:
    """The training's run in MLflow. Raises TrackingError where MLflow fails, here or while `command` adds."""
    uri = store.store_uri(project_root())
    try:
        yield TrackedRun(store.open_store(uri), training)
    except Exception as error:  # of MLflow, of what it imports, of a machine that is full
        raise TrackingError(
            f"{store.failure_in_words(uri, error)}, so run `{training['run_name']}` is not complete there. "
            f"Start it, or set {store.STORE_VARIABLE} to another store, then run `{command}` again: it sends "
            "what is missing."
        ) from None
