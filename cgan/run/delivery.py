"""A run's records → MLflow: what each becomes there.

Each record arrives once, whichever process is killed at whatever moment: the cursor moves after a
delivery, and delivering again changes nothing. The store's key of a metric is (key, step, time, value),
all four from the record; files and pictures have names derived from the record; a model is looked up
first.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.files import write_json
from cgan.run.records import (
    CURSOR,
    MAX_PARAM,
    RECORDS,
    Record,
    RunInfo,
    all_records,
    cursor,
    read_records,
)
from cgan.store.address import open_store
from cgan.store.pages import STRIP, artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from PIL import Image

log = logging.getLogger(__name__)

RUN_KEY_TAG = "cgan.run_key"
MODEL_NAME = "generator"
REJECTED = "rejected.jsonl"
HEADLINE = {
    "conditional_accuracy": "accuracy ↑",
    "fid_judge": "distance ↓",
    "recall": "recall ↑",
    "gan_train_accuracy": "GAN-train ↑",
}
LARGE = 1024  # pixels
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

    def __init__(self, folder: Path, uri: str, root: Path) -> None:
        import mlflow

        mlflow.set_tracking_uri(uri)
        self.folder, self.uri, self.root = folder, uri, root
        self.info = RunInfo.load(folder)
        self.rejected = 0
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._client: MlflowClient | None = None
        self._model_id: str | None = None  # "": none yet
        self.offset: int = cursor(folder)["offset"]

    @property
    def client(self) -> MlflowClient:
        assert self._client
        return self._client

    def connect(self) -> str:
        """The run's id: found by its key, or made. Raises whatever MLflow raises."""
        if self.run_id:
            return self.run_id
        self._client, self.experiment_id = open_store(self.uri, self.root, self.info.experiment)
        run_id = self._find_run() or self._create_run()
        self.run_id = run_id
        self.save_cursor()
        return run_id

    def _find_run(self) -> str | None:
        assert self.experiment_id
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{self.info.run_key}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def _create_run(self) -> str:
        assert self.experiment_id
        first = next(all_records(self.folder), None)
        run = self.client.create_run(
            self.experiment_id,
            start_time=first["time_ms"] if first else None,
            tags={RUN_KEY_TAG: self.info.run_key},
            run_name=self.info.run_name,
        )
        self.offset = 0
        return str(run.info.run_id)

    def deliver(self) -> None:
        """Send all that the folder holds now. Raises whatever MLflow raises when it is away."""
        self.connect()
        while True:
            records, offset = read_records(self.folder / RECORDS, self.offset)
            if offset == self.offset:
                return
            self._send(records)
            self.save_cursor(offset)
            self.offset = offset  # after the cursor: a full disk must not pass for a delivery

    def save_cursor(self, offset: int | None = None, error: str = "") -> None:
        known = {**cursor(self.folder), "follower": os.getpid(), "rejected": self.rejected}
        known["offset"] = self.offset if offset is None else offset
        if self.run_id:
            known |= {"run_id": self.run_id, "experiment_id": self.experiment_id}
        write_json(self.folder / CURSOR, {**known, "error": error})

    def _send(self, records: list[Record]) -> None:
        try:
            self._send_together(records)
        except Exception as error:
            if not _is_refusal(error, self.folder / "files"):
                raise
            for record in records:
                try:
                    self._send_together([record])
                except Exception as error:
                    if not _is_refusal(error, self.folder / "files"):
                        raise
                    self._reject(record, error)

    def _reject(self, record: Record, error: Exception) -> None:
        log.warning("MLflow refuses a record: %s", error)
        self.rejected += 1
        with (self.folder / REJECTED).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "refusal": str(error)[:2000]}) + "\n")

    def _send_together(self, records: list[Record]) -> None:
        """One call for all records of a kind, where MLflow has one."""
        from mlflow.entities import Metric, RunTag

        metrics = [
            Metric(
                key, value, record["time_ms"], record["step"], model_id=self._model_of_metric(key)
            )
            for record, key, value in self._values_not_stored(records)
        ]
        tags = {
            key: value
            for record in records
            if record["kind"] == "tags"
            for key, value in record["tags"].items()
        }
        run_id = self.connect()
        for chunk in _chunks(list(tags.items()), 100):
            self.client.log_batch(run_id, tags=[RunTag(key, value[:5000]) for key, value in chunk])
        for chunk in _chunks(metrics, 1000):
            self.client.log_batch(run_id, metrics=chunk)
        self._send_images([record for record in records if record["kind"] == "image"])
        others: dict[str, Callable[[Record], None]] = {
            "start": self._send_start,
            "params": self._send_params,
            "dataset": self._send_dataset,
            "file": self._send_file,
            "model": self._send_model,
            "end": self._send_end,
            "added": self._send_added,
        }
        for record in records:
            if record["kind"] in others:
                others[record["kind"]](record)

    def _values_not_stored(self, records: list[Record]) -> Iterator[tuple[Record, str, float]]:
        """The values of metrics records that the store lacks.

        An evaluation that was killed and repeated logs the same numbers again at another time, and the
        store would keep both points. Only a number that differs from the last one is sent.
        """
        last: dict[str, float] | None = None
        for record in records:
            if record["kind"] != "metrics":
                continue
            for key, value in record["metrics"].items():
                if record.get("once"):
                    if last is None:
                        last = dict(self.client.get_run(self.connect()).data.metrics)
                    if last.get(key) == value:
                        continue
                    last[key] = value
                yield record, key, value

    def _model_of_metric(self, key: str) -> str | None:
        """The run's model, for a metric that judges it: shown on the model's page too."""
        if not key.startswith("quality/"):
            return None
        if self._model_id is None:
            models = self._models()
            self._model_id = models[-1].model_id if models else ""
        return self._model_id or None

    def _models(self) -> list[LoggedModel]:
        """The run's models, oldest first."""
        assert self.experiment_id
        return list(
            self.client.search_logged_models(
                [self.experiment_id],
                f"source_run_id = '{self.connect()}'",
                order_by=[{"field_name": "creation_time", "ascending": True}],
            )
        )

    def _send_start(self, record: Record) -> None:
        self.client.update_run(self.connect(), status="RUNNING")

    def _send_params(self, record: Record) -> None:
        from mlflow.entities import Param

        for chunk in _chunks(list(record["params"].items()), 100):
            params = [Param(key, value[:MAX_PARAM]) for key, value in chunk]
            self.client.log_batch(self.connect(), params=params)

    def _send_end(self, record: Record) -> None:
        run_id = self.connect()
        if reason := record.get("reason"):
            self.client.set_tag(run_id, "cgan.ended_by", reason)
        self.client.set_terminated(run_id, record["status"], record["time_ms"])
        self._describe()

    def _send_added(self, record: Record) -> None:
        """An evaluation or pictures came: a run that had ended stays so, one made for them ends."""
        run_id = self.connect()
        run = self.client.get_run(run_id)
        if run.info.status == "RUNNING" and "mlflow.source.name" not in run.data.tags:
            self.client.set_terminated(run_id, "FINISHED", record["time_ms"])
        self._describe()

    def _send_images(self, records: list[Record]) -> None:
        """As `MlflowClient.log_image` does, but under a name that is the same at a second try, and larger:
        MLflow shows a picture with as many pixels as it has, and of 256 at most."""
        if not records:
            return
        from PIL import Image

        run_id = self.connect()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for record in records:
                key = record["name"].replace("/", "~")
                identity = uuid.uuid5(uuid.NAMESPACE_OID, record["file"])
                stem = f"{key}+step+{record['step']}+timestamp+{record['time_ms']}+{identity}"
                source = self.folder / "files" / record["file"]
                with Image.open(source) as file:
                    image = enlarged(file)
                    image.save(folder / f"{stem}.png")
                    image.thumbnail((LARGE, LARGE))
                    # The quickest that loses nothing: this is done while the training needs the cores.
                    quickest = {"lossless": True, "quality": 0, "method": 0}
                    image.save(folder / f"{stem}+compressed.webp", format="WEBP", **quickest)
            self.client.log_artifacts(run_id, name, "images")
        self.client.set_tag(run_id, "mlflow.loggedImages", "True")

    def _send_file(self, record: Record) -> None:
        with self._file_as(record, record["name"]) as path:
            self.client.log_artifact(self.connect(), str(path), record["folder"] or None)

    @contextlib.contextmanager
    def _file_as(self, record: Record, name: str) -> Iterator[Path]:
        """A file of the run under the name that it had."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            shutil.copyfile(self.folder / "files" / record["file"], path)
            yield path

    def _send_dataset(self, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = record["facts"]
        dataset = Dataset(
            name=str(facts["name"]),
            digest=str(facts["sha256"])[:12],
            source_type="local",
            source=json.dumps({"uri": facts["path"]}),
            profile=json.dumps({key: facts[key] for key in facts if key not in ("name", "path")}),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.connect(), [DatasetInput(dataset, [context])])

    def _send_model(self, record: Record) -> None:
        import pandas as pd
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

        run_id = self.connect()
        model = self._logged_model(run_id, record)
        if model.status == "READY":
            return
        outputs = self.client.get_run(run_id).outputs
        known = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if model.model_id not in known:  # a second time, the store refuses it
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, record["step"])])
        code = self.folder / "files" / record["code"] / "cgan"
        with self._file_as(record, "generator.safetensors") as path:
            Model.log(
                artifact_path=None,
                flavor=_Pyfunc,
                model_id=model.model_id,
                python_model=str(code / "serving/mlflow_model.py"),
                artifacts={"generator": str(path)},
                code_paths=[str(code)],
                signature=ModelSignature(
                    inputs=Schema([ColSpec("long", "label")]),
                    outputs=Schema([ColSpec("string", "png_base64")]),
                    params=ParamSchema([ParamSpec("seed", "long", 0)]),
                ),
                input_example=(pd.DataFrame({"label": [0, 1]}), {"seed": 7}),
                pip_requirements=_requirements(),
                validate_serving_input=False,
            )

    def _logged_model(self, run_id: str, record: Record) -> LoggedModel:
        """The store's entry for a model record, new or left by a delivery that was cut off."""
        assert self.experiment_id
        self._model_id = None
        for model in self._models():
            if model.tags.get("cgan.record") == record["file"]:
                return model
        return self.client.create_logged_model(
            self.experiment_id,
            name=MODEL_NAME,
            source_run_id=run_id,
            tags={
                **{key: str(value) for key, value in record["facts"].items()},
                "cgan.record": record["file"],
                "mlflow.note.content": MODEL_NOTE.format(run_id=run_id, name=MODEL_NAME),
            },
            params=self.client.get_run(run_id).data.params,
            model_type="generator",
        )

    def _describe(self) -> None:
        """The run's description, from what the store holds of it."""
        run_id = self.connect()
        run = self.client.get_run(run_id)
        self.client.set_tag(
            run_id, "mlflow.note.content", describe(run_id, run.data.params, run.data.metrics)
        )


def describe(run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """A run in Markdown: a drawing of each class, its headline numbers, what it is, where to look."""
    headline = [
        f"{words} **{metrics[f'quality/{key}']:.4g}**"
        for key, words in HEADLINE.items()
        if f"quality/{key}" in metrics
    ]
    lines = []
    if headline:  # then the pictures are there too
        strip = f"![A drawing of each class]({artifact(run_id, STRIP)})"
        lines += [" · ".join(headline), "", strip, ""]
    recipe = "A class-conditional generator, trained, judged and drawn with."
    if "train.generator" in params:
        recipe = (
            f"A `{params['train.generator']}` generator against a `{params['train.discriminator']}` "
            f"discriminator, {params['train.objective']} objective, "
            f"{params['train.total_kimg']} thousand images shown, seed {params['train.seed']}."
        )
    where = (
        "*Model metrics* shows the drawings over the training, losses and logits; *Artifacts* the grid, the "
        "film, and quality as tables; *Logged models* the generator, ready to draw."
    )
    return "\n".join([*lines, recipe, "", where])


def enlarged(image: Image.Image) -> Image.Image:
    """Each pixel as many times as there is room for within LARGE."""
    scale = max(1, LARGE // max(image.size))
    return image.resize((scale * image.width, scale * image.height), 0)  # 0: nearest


class _Pyfunc:
    """MLflow's pyfunc flavour without the trial run of the example, which would load torch here."""

    __name__ = "mlflow.pyfunc"

    @staticmethod
    def save_model(path: str, validate_serving_input: bool, **kwargs: Any) -> None:
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(path, **kwargs)


def _requirements() -> list[str]:
    names = ["torch", "numpy", "pandas", "pillow", "safetensors"]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _is_refusal(error: Exception, files: Path) -> bool:
    """Would the store refuse the same record again later?

    No, where the store is away, busy or full, or this machine lacks memory, threads or temporary space. A
    missing file is a refusal only if it belongs to the run, in `files`.
    """
    from mlflow.exceptions import MlflowException
    from PIL import UnidentifiedImageError
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
    if isinstance(error, UnidentifiedImageError):
        return True
    if isinstance(error, FileNotFoundError):
        return files in Path(str(error.filename)).parents
    today = (OSError, SQLAlchemyError, json.JSONDecodeError, MemoryError, ImportError, RuntimeError)
    return not isinstance(error, today)


def _chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
