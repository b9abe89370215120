"""The MLflow run of a training: found by its key or made, and completed.

What the run has is asked for first, so that nothing is in it twice, whatever was killed at whatever moment:
the steps of a metric, the names of pictures, the model. A file takes the place of itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgan.errors import TrackingError
from cgan.evaluation import QUALITY
from cgan.files import read_json
from cgan.hosts import without_credentials
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.tags import ENDED_BY_TAG, RUN_KEY_TAG
from cgan.project import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun

MODEL_NAME = "generator"
DIGITS = 6  # of a metric: what float32 has
IMAGE_SIDE = 256  # pixels that MLflow's page has for a picture
BATCH = 1000  # metrics that MLflow takes in one call

Point = tuple[str, float, int, int]  # of a metric: name, value, step, time in ms


class TrainingRecord(TypedDict, total=False):
    """The content of models/training.json: each fact from the moment at which it is known."""

    run_key: str
    run_name: str
    experiment: str
    began_ms: int
    ended_ms: int
    run_id: str | None  # where MLflow has given one
    params: dict[str, Any]  # flat
    tags: dict[str, str]
    dataset: dict[str, Any]  # at least name, path and sha256
    origin: dict[str, Any]
    numbers: dict[str, float]  # such as time/training_s
    training_s: float


def read_training(path: Path) -> TrainingRecord:
    """The record of a training. Raises CganError for a file that is missing or damaged."""
    return cast("TrainingRecord", read_json(path))


class Run:
    """`mlflow_run`: MLflow's run as it was found or made. `location`: where it is.

    `training`: at least run_key, run_name, experiment and began_ms. All methods raise whatever MLflow
    raises."""

    def __init__(self, client: MlflowClient, training: TrainingRecord) -> None:
        experiment, key = store.experiment_id(client, training["experiment"]), training["run_key"]
        with store.store_locked():  # two at once find one run
            runs = list(client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{key}'"))
            if not runs:
                tags = {RUN_KEY_TAG: key}
                runs = [
                    client.create_run(experiment, training["began_ms"], tags, training["run_name"])
                ]
        self.mlflow_run = runs[0]
        self.client, self.training, self.run_id = client, training, self.mlflow_run.info.run_id
        self.location = {
            "run_id": self.run_id,
            "experiment_id": self.mlflow_run.info.experiment_id,
            "tracking_uri": without_credentials(str(client.tracking_uri)),
        }
        self._steps: dict[str, set[int]] = {}
        self._pictures: list[str] | None = None

    def log_inputs(self, tags: Mapping[str, str]) -> None:
        """Log params, the tags of `training` and these, and the dataset."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        recorded = self.mlflow_run.data.params
        # MLflow refuses to change a param; one that changes no result may have another value by now.
        params = self.training["params"].items()
        new = [Param(key, str(value)) for key, value in params if key not in recorded]
        self.client.log_batch(self.run_id, params=new)
        self.set_tags(self.training["tags"] | dict(tags))
        # The tag of a failure or a stop, after which the training went on.
        if ENDED_BY_TAG in self.mlflow_run.data.tags:
            self.client.delete_tag(self.run_id, ENDED_BY_TAG)
        facts = self.training["dataset"]
        source, profile = json.dumps({"uri": facts["path"]}), json.dumps(facts)
        data = Dataset(facts["name"], facts["sha256"][:12], "local", source, profile=profile)
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(data, [context])])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(*tag) for tag in self._with_run_id(tags).items()]
        self.client.log_batch(self.run_id, tags=entities)

    def _with_run_id(self, tags: Mapping[str, str]) -> dict[str, str]:
        """RUN_ID in a tag becomes the run's id."""
        return {
            key: value.replace(store.RUN_ID_PLACEHOLDER, self.run_id) for key, value in tags.items()
        }

    def log_metrics(self, points: Iterable[Point]) -> None:
        """Each step of a series once, and numbers of an evaluation where they have changed, for the model's
        page too. A value that is not finite is left out, since charts cannot show it."""
        from mlflow.entities import Metric

        metrics = list[Metric]()
        for key, value, step, time_ms in points:
            value = float(f"{value:.{DIGITS}g}")
            if math.isfinite(value) and self._claim_step(key, value, step):
                model_id = self._model_id if key.startswith(QUALITY) else None
                metrics.append(Metric(key, value, time_ms, step, model_id=model_id))
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run_id, metrics[start : start + BATCH])

    @functools.cached_property
    def _model_id(self) -> str | None:
        model = model_of(self.client, self.mlflow_run)
        return model.model_id if model else None

    def _claim_step(self, key: str, value: float, step: int) -> bool:
        """Has the run not got this number yet? Of a series, the step then counts as logged."""
        latest = self.mlflow_run.data.metrics.get(key)
        if key.startswith(QUALITY):
            return latest != value
        if key not in self._steps:
            points = [] if latest is None else self.client.get_metric_history(self.run_id, key)
            self._steps[key] = {point.step for point in points}
        before = len(self._steps[key])
        self._steps[key].add(step)
        return len(self._steps[key]) > before

    def log_image(self, name: str, image: NDArray[np.uint8], step: int, time_ms: int) -> None:
        """uint8 [H, W] or [H, W, 3]; a small one is enlarged."""
        if self._pictures is None:
            self._pictures = [
                found.path for found in self.client.list_artifacts(self.run_id, "images")
            ]
        mark = f"{name.rpartition('/')[2]}+step+{step}+"  # MLflow ends the name of each at random
        if not any(mark in path for path in self._pictures):
            scale = max(1, IMAGE_SIDE // max(image.shape[:2]))
            enlarged = Image.fromarray(image.repeat(scale, 0).repeat(scale, 1))
            self.client.log_image(self.run_id, enlarged, None, name, step, time_ms)

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
            self._with_run_id(tags),
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
def open_run(training: TrainingRecord, command: str = "dvc repro") -> Iterator[Run]:
    """The training's run in MLflow. Raises TrackingError where MLflow fails, here or while `command` adds to
    the run."""
    uri = store.store_uri(project_root())
    try:
        yield Run(store.open_store(uri), training)
    except Exception as error:  # of MLflow, of what it imports, of a machine that is full
        raise TrackingError(
            f"{store.failure_in_words(uri, error)}, so run `{training['run_name']}` is not complete there. "
            f"Start it, or set {store.STORE_VARIABLE} to another store, then run `{command}` again: it sends "
            "what is missing."
        ) from None
