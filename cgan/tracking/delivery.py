"""A run's records → MLflow: what each becomes there.

Sending again changes nothing, whatever was killed at whatever moment. The store's key of a metric is (run,
name, step, time, value), all of which stand in the records; files and pictures have names derived from the
record; a run is found by its key, a model by its run.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.metric import METRICS
from cgan.tracking.pages import STRIP, artifact
from cgan.tracking.records import SENT, Record, RunInfo, append, unsent
from cgan.tracking.store import TIMEOUT, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

RUN_KEY_TAG = "cgan.run_key"
MODEL_NAME = "generator"
ARROWS = {"higher": "↑", "lower": "↓"}
SHOWN = 256  # pixels of a picture that MLflow shows
MAX_PARAM, MAX_TAG = 6000, 5000  # characters of a value that MLflow takes
JUDGED = "quality/"
MODEL_NOTE = """\
The trained generator. It draws the classes that it is asked for:

```python
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("runs:/{run_id}/{name}")
drawn = model.predict(pd.DataFrame({{"label": [2, 0, 2, 4]}}), params={{"seed": 7}})
```

Column `png_base64` holds a PNG a row. Same labels and seed: same pictures.
"""


class Delivery:
    """Sends the records of one run to the store at `uri`. Methods raise whatever MLflow raises."""

    client: MlflowClient
    experiment_id: str | None = None
    run_id: str | None = None

    def __init__(self, folder: Path, uri: str, root: Path) -> None:
        self.folder, self.uri, self.root = folder, uri, root
        self.info = RunInfo.load(folder)
        self.offset, self.complete = (
            0,
            True,
        )  # of what this object sent, and is all before it there?
        self.until = math.inf

    def send(self, patience_s: float) -> None:
        """Send what is new but for the model, which takes seconds, and what is shown on its page. Raises
        TimeoutError after `patience_s`."""
        self.until = time.monotonic() + patience_s
        records, offset = unsent(self.folder, self.offset)
        self._connect(records)
        self._send(records)
        self.offset = offset
        self.complete &= not any(map(_comes_later, records))
        if self.complete:
            append(self.folder, SENT, offset=offset)

    def send_all(self) -> None:
        """Send what is not marked as sent."""
        records, offset = unsent(self.folder)
        self._connect(records)
        self._send(records)
        for record in records:
            if record["kind"] == "model":
                self._send_model(record)
        if any(map(_comes_later, records)):
            self._send_judged(records)
        append(self.folder, SENT, offset=offset)

    def _in_time(self) -> None:
        """Before each call of the store: have it answer by `until`."""
        if self.until < math.inf:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            os.environ[TIMEOUT] = str(math.ceil(left))

    def _connect(self, records: list[Record]) -> None:
        """Find the run by its key, or make it."""
        if self.run_id:
            return
        self._in_time()
        self.client, experiment = open_store(self.uri, self.root, self.info.experiment)
        self._in_time()
        by_key = f"tags.`{RUN_KEY_TAG}` = '{self.info.run_key}'"
        found = self.client.search_runs([experiment], by_key, max_results=1)
        self._in_time()
        run = next(iter(found), None) or self.client.create_run(
            experiment,
            start_time=records[0]["time_ms"] if records else None,
            tags={RUN_KEY_TAG: self.info.run_key},
            run_name=self.info.run_name,
        )
        self.run_id, self.experiment_id = str(run.info.run_id), experiment

    def _send(self, records: list[Record]) -> None:
        """All but the model, and the numbers that are shown on its page."""
        from mlflow.entities import Metric, Param, RunTag

        assert self.run_id
        metrics = [
            Metric(key, value, each["time_ms"], each["step"])
            for each in records
            for key, value in each.get("metrics", {}).items()
            if not key.startswith(JUDGED)
        ]
        params = {k: v for each in records for k, v in each.get("params", {}).items()}
        tags = {k: v for each in records for k, v in each.get("tags", {}).items()}
        self._in_time()
        self.client.log_batch(
            self.run_id,
            metrics,
            [Param(key, value[:MAX_PARAM]) for key, value in params.items()],
            [RunTag(key, value[:MAX_TAG]) for key, value in tags.items()],
        )
        if images := [each for each in records if each["kind"] == "image"]:
            self._send_images(images)
        for record in records:
            self._in_time()
            match record["kind"]:
                case "start":
                    self.client.update_run(self.run_id, status="RUNNING")
                case "dataset":
                    self._send_dataset(record["facts"])
                case "file":
                    path = self.folder / "files" / record["file"]
                    self.client.log_artifact(self.run_id, str(path), record["folder"] or None)
                case "end":
                    if reason := record.get("reason"):
                        self.client.set_tag(self.run_id, "cgan.ended_by", reason)
                    self.client.set_terminated(self.run_id, record["status"], record["time_ms"])

    def _send_images(self, records: list[Record]) -> None:
        """MLflow names them at random: what it has is looked up, by what it calls step and time."""
        from PIL import Image

        assert self.run_id
        self._in_time()
        known = [each.path for each in self.client.list_artifacts(self.run_id, "images")]
        for record in records:
            name, step, time_ms = record["name"], record["step"], record["time_ms"]
            mark = f"{name.rpartition('/')[2]}+step+{step}+timestamp+{time_ms}+"
            if not any(mark in path for path in known):
                self._in_time()
                with Image.open(self.folder / "files" / record["file"]) as image:
                    scale = max(1, SHOWN // max(image.size))
                    enlarged = image.resize(
                        (scale * image.width, scale * image.height), Image.Resampling.NEAREST
                    )
                self.client.log_image(self.run_id, enlarged, key=name, step=step, timestamp=time_ms)

    def _send_dataset(self, facts: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=str(facts["name"]),
            digest=str(facts["sha256"])[:12],
            source_type="local",
            source=json.dumps({"uri": facts["path"]}),
            profile=json.dumps({key: facts[key] for key in facts if key not in ("name", "path")}),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(str(self.run_id), [DatasetInput(dataset, [context])])

    def _send_judged(self, records: list[Record]) -> None:
        """The numbers of an evaluation, for the model's page too, and the run's note. What the run has is
        left out: another machine may have recorded the same."""
        from mlflow.entities import Metric

        run, model = self.client.get_run(str(self.run_id)), self._model()
        known, new = dict(run.data.metrics), list[Metric]()
        for each in records:
            for key, value in each.get("metrics", {}).items():
                if key.startswith(JUDGED) and known.get(key) != value:
                    known[key] = value
                    model_id = model.model_id if model else None
                    new.append(Metric(key, value, each["time_ms"], each["step"], model_id=model_id))
        self.client.log_batch(run.info.run_id, new)
        if any(each["kind"] == "added" for each in records) and run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id)  # its training's records are elsewhere
        if note := describe(run.info.run_id, known):
            self.client.set_tag(run.info.run_id, "mlflow.note.content", note)

    def _model(self) -> LoggedModel | None:
        """The run's model, once there is one."""
        of_run = f"source_run_id = '{self.run_id}'"
        found = self.client.search_logged_models([str(self.experiment_id)], of_run)
        return next(iter(found), None)

    def _send_model(self, record: Record) -> None:
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

        run = self.client.get_run(str(self.run_id))
        model = self._model() or self.client.create_logged_model(
            str(self.experiment_id),
            name=MODEL_NAME,
            source_run_id=self.run_id,
            tags={
                **{key: str(value) for key, value in record["facts"].items()},
                "mlflow.note.content": MODEL_NOTE.format(run_id=self.run_id, name=MODEL_NAME),
            },
            params=run.data.params,
            model_type="generator",
        )
        if model.status == "READY":
            return
        known = [each.model_id for each in run.outputs.model_outputs] if run.outputs else []
        if model.model_id not in known:  # a second time, the store refuses it
            output = LoggedModelOutput(model.model_id, record["step"])
            self.client.log_outputs(run.info.run_id, [output])
        files = self.folder / "files" / record["file"]
        mlflow.set_tracking_uri(self.uri)
        # It would like an example, and draws with it: it would load torch here.
        with warnings.catch_warnings(action="ignore"):
            mlflow.pyfunc.log_model(
                model_id=model.model_id,
                python_model=str(files / "cgan/serving/mlflow_model.py"),
                artifacts={"generator": str(files / "generator.safetensors")},
                code_paths=[str(files / "cgan")],
                signature=ModelSignature(
                    inputs=Schema([ColSpec("long", "label")]),
                    outputs=Schema([ColSpec("string", "png_base64")]),
                    params=ParamSchema([ParamSpec("seed", "long", 0)]),
                ),
                pip_requirements=_requirements(),
            )


def _comes_later(record: Record) -> bool:
    judged = any(key.startswith(JUDGED) for key in record.get("metrics", {}))
    return judged or record["kind"] in ("model", "added")


def describe(run_id: str, metrics: Mapping[str, float]) -> str:
    """A run in Markdown: its headline numbers and a drawing of each class; nothing before it is judged."""
    headline = " · ".join(
        f"{metric.headline} {ARROWS[metric.better]} **{metrics[f'quality/{key}']:.4g}**"
        for key, metric in METRICS.items()
        if metric.headline and f"quality/{key}" in metrics
    )
    strip = f"![A drawing of each class]({artifact(run_id, STRIP)})"
    return f"{headline}\n\n{strip}" if headline else ""


def _requirements() -> list[str]:
    names = ["torch", "numpy", "pandas", "pillow", "safetensors"]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]
