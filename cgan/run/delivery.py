"""A run's records → MLflow: what each becomes there.

Each record arrives once, whichever process is killed at whatever moment: the cursor moves after a
delivery, and delivering again changes nothing. The store's key of a metric is (key, step, time, value),
all four from the record; files and pictures have names derived from the record; a model is looked up
first.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.files import write_json
from cgan.metric import METRICS
from cgan.run.records import (
    CURSOR,
    MAX_PARAM,
    RECORDS,
    Record,
    RunInfo,
    cursor,
    read_records,
)
from cgan.store.address import open_store
from cgan.store.pages import STRIP, artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric

log = logging.getLogger(__name__)

RUN_KEY_TAG = "cgan.run_key"
MODEL_NAME = "generator"
ARROWS = {"higher": "↑", "lower": "↓"}
LARGE = 1024  # pixels
JUDGED = "quality/"
AT_ONCE = 500  # records; then the cursor moves
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
    """Sends the records of one run to the store at `uri`; the caller holds the folder's lock."""

    client: MlflowClient
    experiment_id: str

    def __init__(self, folder: Path, uri: str, root: Path) -> None:
        import mlflow

        mlflow.set_tracking_uri(uri)
        self.folder, self.uri, self.root = folder, uri, root
        self.info = RunInfo.load(folder)
        self.refused = 0
        self.run_id = ""
        self.cursor = cursor(folder)

    def deliver(self) -> None:
        """Send all that the folder holds now. Raises whatever MLflow raises when it is away."""
        if not self.run_id:
            self._connect()
        while True:
            records, offset = read_records(self.folder / RECORDS, self.cursor["offset"], AT_ONCE)
            if offset == self.cursor["offset"]:
                return
            self._send(records)
            self.save_cursor(offset=offset)

    def _connect(self) -> None:
        """Find the run by its key, or make it."""
        self.client, self.experiment_id = open_store(self.uri, self.root, self.info.experiment)
        by_key = f"tags.`{RUN_KEY_TAG}` = '{self.info.run_key}'"
        found = self.client.search_runs([self.experiment_id], by_key, max_results=1)
        first, _ = read_records(self.folder / RECORDS, limit=1)
        run = next(iter(found), None) or self.client.create_run(
            self.experiment_id,
            start_time=first[0]["time_ms"] if first else None,
            tags={RUN_KEY_TAG: self.info.run_key},
            run_name=self.info.run_name,
        )
        self.run_id = str(run.info.run_id)
        offset = self.cursor["offset"] if found else 0
        self.save_cursor(run_id=self.run_id, experiment_id=self.experiment_id, offset=offset)

    def save_cursor(self, error: str = "", **changes: Any) -> None:
        known = {**self.cursor, "refused": self.refused, "error": error, **changes}
        write_json(self.folder / CURSOR, known)
        self.cursor = known  # not before: a full disk must not pass for a delivery

    def _send(self, records: list[Record]) -> None:
        """All together; one by one, where MLflow refuses some."""
        try:
            self._send_together(records)
        except Exception as error:
            if not _is_refusal(error, self.folder / "files"):
                raise
            if len(records) == 1:
                log.warning("MLflow refuses %s: %s", json.dumps(records[0])[:1000], error)
                self.refused += 1
                return
            for record in records:
                self._send([record])

    def _send_together(self, records: list[Record]) -> None:
        """One call for all records of a kind, where MLflow has one."""
        from mlflow.entities import Param, RunTag

        tags = {k: v for record in records for k, v in record.get("tags", {}).items()}
        self._log("tags", [RunTag(key, value[:5000]) for key, value in tags.items()])
        self._log("metrics", self._metrics(records), 1000)
        self._send_images([record for record in records if record["kind"] == "image"])
        for record in records:
            match record["kind"]:
                case "start":
                    self.client.update_run(self.run_id, status="RUNNING")
                case "params":
                    params = record["params"].items()
                    self._log("params", [Param(key, value[:MAX_PARAM]) for key, value in params])
                case "dataset":
                    self._send_dataset(record["facts"])
                case "file":
                    path = self.folder / "files" / record["file"]
                    self.client.log_artifact(self.run_id, str(path), record["folder"] or None)
                case "model":
                    self._send_model(record)
                case "end" | "added":
                    self._send_end(record)

    def _log(self, kind: str, values: list[Any], most: int = 100) -> None:
        """Params, tags or metrics, as many in a call as MLflow takes."""
        log_batch: Any = self.client.log_batch
        for start in range(0, len(values), most):
            log_batch(self.run_id, **{kind: values[start : start + most]})

    def _metrics(self, records: list[Record]) -> list[Metric]:
        """The values. Those of an evaluation are shown on the model's page too, and are left out where the
        run has them: another checkout or machine may have recorded the same."""
        from mlflow.entities import Metric

        values = [(each, *item) for each in records for item in each.get("metrics", {}).items()]
        model, known = None, dict[str, float]()
        if any(key.startswith(JUDGED) for _, key, _ in values):
            model, known = self._model(), dict(self.client.get_run(self.run_id).data.metrics)
        found = []
        for record, key, value in values:
            judged = model.model_id if model and key.startswith(JUDGED) else None
            if key.startswith(JUDGED) and known.get(key) == value:
                continue
            known[key] = value
            found.append(Metric(key, value, record["time_ms"], record["step"], model_id=judged))
        return found

    def _model(self) -> LoggedModel | None:
        """The run's model, once there is one."""
        of_run = f"source_run_id = '{self.run_id}'"
        return next(iter(self.client.search_logged_models([self.experiment_id], of_run)), None)

    def _send_end(self, record: Record) -> None:
        """The run ends; where only something was added, when it had ended."""
        run = self.client.get_run(self.run_id)
        if reason := record.get("reason"):
            self.client.set_tag(self.run_id, "cgan.ended_by", reason)
        had_ended = run.info.end_time if record["kind"] == "added" else None
        status = record.get("status", "FINISHED")
        self.client.set_terminated(self.run_id, status, had_ended or record["time_ms"])
        self.client.set_tag(
            self.run_id, "mlflow.note.content", describe(self.run_id, run.data.metrics)
        )

    def _send_images(self, records: list[Record]) -> None:
        """As `MlflowClient.log_image` does, but under a name that is the same at a second try, and larger:
        MLflow shows a picture with as many pixels as it has, and of 256 at most."""
        if not records:
            return
        from PIL import Image

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for record in records:
                key = record["name"].replace("/", "~")
                identity = uuid.uuid5(uuid.NAMESPACE_OID, record["file"])
                stem = f"{key}+step+{record['step']}+timestamp+{record['time_ms']}+{identity}"
                source = self.folder / "files" / record["file"]
                with Image.open(source) as file:
                    scale = max(1, LARGE // max(file.size))
                    size = scale * file.width, scale * file.height
                    image = file.resize(size, Image.Resampling.NEAREST)
                    image.save(folder / f"{stem}.png")
                    image.thumbnail((LARGE, LARGE))
                    # The quickest that loses nothing: this is done while the training needs the cores.
                    quickest = {"lossless": True, "quality": 0, "method": 0}
                    image.save(folder / f"{stem}+compressed.webp", format="WEBP", **quickest)
            self.client.log_artifacts(self.run_id, name, "images")
        self.client.set_tag(self.run_id, "mlflow.loggedImages", "True")

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
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])

    def _send_model(self, record: Record) -> None:
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

        model = self._model() or self._create_model(record)  # there is one: a delivery was cut off
        if model.status == "READY":
            return
        outputs = self.client.get_run(self.run_id).outputs
        known = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if model.model_id not in known:  # a second time, the store refuses it
            output = LoggedModelOutput(model.model_id, record["step"])
            self.client.log_outputs(self.run_id, [output])
        files = self.folder / "files" / record["file"]
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

    def _create_model(self, record: Record) -> LoggedModel:
        return self.client.create_logged_model(
            self.experiment_id,
            name=MODEL_NAME,
            source_run_id=self.run_id,
            tags={
                **{key: str(value) for key, value in record["facts"].items()},
                "mlflow.note.content": MODEL_NOTE.format(run_id=self.run_id, name=MODEL_NAME),
            },
            params=self.client.get_run(self.run_id).data.params,
            model_type="generator",
        )


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


def _is_refusal(error: Exception, files: Path) -> bool:
    """Would the store refuse the same record again later? A missing file is a refusal only if it belongs to
    the run, in `files`. Anything else may be this machine's trouble, or the store's, of today."""
    from mlflow.exceptions import MlflowException
    from PIL import UnidentifiedImageError

    if isinstance(error, MlflowException):
        return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
    if isinstance(error, FileNotFoundError):
        return files in Path(str(error.filename)).parents
    return isinstance(error, UnidentifiedImageError)
