"""Journals → MLflow: the sender process, and `cgan track flush`.

Each record arrives once, whatever is killed when: the cursor moves after a delivery, and delivering
again changes nothing. The store's key of a metric is (key, step, time, value), all four from the
journal; files and pictures have names derived from the record; a model is looked up first.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.metadata
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cgan.errors import TrackingError
from cgan.files import replacing, write_json
from cgan.tracking.journal import (
    CURSOR,
    JOURNAL,
    Record,
    RunHeader,
    all_records,
    count_waiting,
    delivered_offset,
    is_finished,
    journals,
    project_root,
    read_records,
    remove_if_unused,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

log = logging.getLogger(__name__)

POLL_S = 5.0  # each delivery costs the training a little of its second core
MAX_BACKOFF_S = 30.0
HTTP_TIMEOUT_S = 10
RUN_KEY_TAG = "cgan.run_key"
MODEL_NAME = "generator"
STORE = "MLFLOW_TRACKING_URI"
REJECTED = "rejected.jsonl"
SQLITE = "sqlite:///"
FOREIGN_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME")
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": """\
Trainings of a class-conditional DCGAN: see *Training runs* on the left (this browser shows *GenAI* \
pages? Choose *Model training* above it). A run is one training, its evaluation and its pictures.

- **Compare** runs by `quality/conditional_accuracy` (higher is better) and `quality/fid_judge` (lower
  is better): choose them under *Columns*, or open the chart view.
- **In a run**: losses and logits by step under *Model metrics*, and there, at the end, the drawings
  over the training (open the panel full screen and move its slider; as a film: `samples/training.gif`
  under *Artifacts*); samples, reports and diagrams under *Artifacts*; the machine's load under
  *System metrics*; the generator, ready to load, under *Logged models*.
""",
}
MODEL_NOTE = """\
The trained generator. It draws the classes that it is asked for:

```python
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("runs:/{run_id}/{name}")
drawn = model.predict(pd.DataFrame({{"label": [2, 0, 2, 4]}}), params={{"seed": 7}})
```

Column `png_base64` holds a PNG a row. Same labels and seed: same pictures.
"""


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else sqlite in the project's root. A relative sqlite path is the root's.

    A user and password in the address of a server are moved to where MLflow looks for them too, in the
    environment: its errors quote the address.

    Raises TrackingError for a folder (`file:` or a plain path): MLflow has no file store any more. And for a
    project in whose path a database's address would end too early.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri or (uri.startswith(SQLITE) and not uri.startswith((SQLITE + "/", SQLITE + ":"))):
        if "?" in str(root) or unquote(str(root)) != str(root):
            raise TrackingError(
                f"{root}: has a `?` or a `%` with two digits in its path, which means something else in the "
                "address of a database. Rename that folder, or set MLFLOW_TRACKING_URI to a store elsewhere."
            )
        return f"{SQLITE}{root / (uri.removeprefix(SQLITE) or 'mlflow.db')}"
    if uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
        folder = uri.removeprefix("file:").replace("//", "/") or "mlruns"
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {uri!r}, a folder; MLflow keeps runs in a database or a server "
            "since 3.13. Move the old runs with `mlflow migrate-filestore --source "
            f"{folder} --target sqlite:///mlflow.db`, then set MLFLOW_TRACKING_URI to "
            "sqlite:///mlflow.db, or unset it: that is the default."
        )
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return without_credentials(uri)
    return uri


def without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _is_local(uri: str) -> bool:
    return not uri.startswith(("http://", "https://", "databricks"))


def artifact_root(uri: str, root: Path) -> Path:
    """Where the artifacts of a local store lie: beside the sqlite file."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    return root / "mlartifacts"


def make_store(uri: str) -> None:
    """A new sqlite store, complete or not at all: half-made tables would be refused for ever."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or path.exists():
        return
    from mlflow import MlflowClient

    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):  # its maker was killed
        leftover.unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.unlink()  # MLflow takes an empty file for an old store
        MlflowClient(f"{SQLITE}{temporary}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def client_settings() -> dict[str, str]:
    """Short timeouts and no retries: the sender tries again by itself, and knows when to give up."""
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(HTTP_TIMEOUT_S),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "OMP_NUM_THREADS": "1",
    }


class Delivery:
    """Delivers one journal to the store at `uri`; the caller holds the journal's `sender.lock`.

    A journal that is gone has been delivered by somebody else.
    """

    def __init__(self, folder: Path, uri: str, root: Path, header: RunHeader | None = None) -> None:
        import mlflow

        mlflow.set_tracking_uri(uri)
        self.folder, self.uri, self.root = folder, uri, root
        self.header = header or RunHeader.load(folder)
        self.rejected = 0
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._client: MlflowClient | None = None
        self._model_id: str | None = None  # "": none yet
        self.offset = delivered_offset(folder)

    @property
    def client(self) -> MlflowClient:
        assert self._client
        return self._client

    def connect(self) -> str:
        """The run's id: found by its key, or made. Raises whatever MLflow raises."""
        if self.run_id:
            return self.run_id
        from mlflow import MlflowClient

        # The first contact makes the tables of a new sqlite store: two processes at once fail.
        lock = self.root / ".cgan" / "store.lock"
        with _locked(lock) if _is_local(self.uri) else contextlib.nullcontext():
            make_store(self.uri)
            self._client = MlflowClient(self.uri)
            self.experiment_id = self._experiment()
        run_id = self._find_run() or self._create_run()
        self.run_id = run_id
        return run_id

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.header.experiment
        found = self.client.get_experiment_by_name(name)
        if found is None:
            location = None
            if _is_local(self.uri):
                location = artifact_root(self.uri, self.root).as_uri()
            try:
                made = self.client.create_experiment(name, location, tags=EXPERIMENT_TAGS)
                return str(made)
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment `{name}` is deleted: bring it back with `mlflow experiments "
                f"restore --experiment-id {found.experiment_id}`, or set `tracking.experiment`"
            )
        return str(found.experiment_id)

    def _find_run(self) -> str | None:
        assert self.experiment_id
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{self.header.run_key}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def _create_run(self) -> str:
        assert self.experiment_id
        first = next(iter(all_records(self.folder / JOURNAL)), None)
        run = self.client.create_run(
            self.experiment_id,
            start_time=first["time_ms"] if first else None,
            tags={RUN_KEY_TAG: self.header.run_key},
            run_name=self.header.run_name,
        )
        self.offset = 0
        return str(run.info.run_id)

    def deliver(self) -> None:
        """Send all that the journal holds now. Raises whatever MLflow raises when it is away."""
        while True:
            self.connect()
            try:
                records, offset = read_records(self.folder / JOURNAL, self.offset)
            except FileNotFoundError:
                return
            if offset == self.offset:
                return
            self._send(records)
            write_json(self.folder / CURSOR, {"offset": offset, "run_id": self.run_id})
            self.offset = offset  # after the cursor: a full disk must not pass for a delivery

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
        with (self.folder / REJECTED).open("a") as file:
            file.write(json.dumps({**record, "refusal": str(error)[:2000]}) + "\n")

    def _send_together(self, records: list[Record]) -> None:
        """One call for all records of a kind, where MLflow has one."""
        from mlflow.entities import Metric, RunTag

        metrics = [
            Metric(key, value, record["time_ms"], record["step"], model_id=self._judged(key))
            for record, key, value in self._fresh(records)
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

    def _fresh(self, records: list[Record]) -> Iterator[tuple[Record, str, float]]:
        """The values of metrics records that the store lacks.

        An evaluation that was killed and repeated says the same numbers again, at another time, which
        would be another point to the store. Only a number that differs from the last one is told.
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

    def _judged(self, key: str) -> str | None:
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
            params = [Param(key, value[:6000]) for key, value in chunk]
            self.client.log_batch(self.connect(), params=params)

    def _send_end(self, record: Record) -> None:
        run_id = self.connect()
        if reason := record.get("reason"):
            self.client.set_tag(run_id, "cgan.ended_by", reason)
        self.client.set_terminated(run_id, record["status"], record["time_ms"])
        self._describe()

    def _send_added(self, record: Record) -> None:
        """Evaluation or pictures came: an ended run stays ended, one made here for them ends."""
        run_id = self.connect()
        run = self.client.get_run(run_id)
        if run.info.status == "RUNNING" and "mlflow.source.name" not in run.data.tags:
            self.client.set_terminated(run_id, "FINISHED", record["time_ms"])
        self._describe()

    def _send_images(self, records: list[Record]) -> None:
        """As `MlflowClient.log_image` does, but under a name that is the same at a second try."""
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
                shutil.copyfile(source, folder / f"{stem}.png")
                with Image.open(source) as image:
                    image.thumbnail((256, 256))
                    image.save(folder / f"{stem}+compressed.webp", format="WEBP")
            self.client.log_artifacts(run_id, name, "images")
        self.client.set_tag(run_id, "mlflow.loggedImages", "True")

    def _send_file(self, record: Record) -> None:
        with self._named(record, record["name"]) as path:
            self.client.log_artifact(self.connect(), str(path), record["folder"] or None)

    @contextlib.contextmanager
    def _named(self, record: Record, name: str) -> Iterator[Path]:
        """A journal's file under the name that it had."""
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
        # In a journal of before 2026-12 the package was one folder without subfolders.
        entries = code / "serving/mlflow_model.py", code / "mlflow_model.py"
        with self._named(record, "generator.safetensors") as path:
            Model.log(
                artifact_path=None,
                flavor=_Pyfunc,
                model_id=model.model_id,
                python_model=str(next(e for e in entries if e.exists())),
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
            run_id, "mlflow.note.content", describe(run.data.params, run.data.metrics)
        )


def describe(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """What a run is, its headline numbers and where to look, in Markdown."""
    lines = ["A class-conditional generator, trained, judged and drawn with."]
    if "train.generator" in params:
        lines[0] = (
            f"A `{params['train.generator']}` generator against a `{params['train.discriminator']}` "
            f"discriminator, {params['train.objective']} objective, "
            f"{params['train.total_kimg']} thousand images shown, seed {params['train.seed']}."
        )
    headline = [
        f"{key.removeprefix('quality/').replace('_', ' ')} **{value:.4g}**"
        for key, value in sorted(metrics.items())
        if key.startswith("quality/") and "class_" not in key
    ]
    if headline:
        lines += ["", " · ".join(headline)]
    lines += [
        "",
        "- **Model metrics**: losses and logits by step; at the end, the drawings over the training "
        "(open the panel full screen, move its slider).",
        "- **Artifacts**: `samples/` grids, interpolations and the film of the training, `reports/` "
        "evaluation and diagrams.",
        "- **Logged models**: the generator; `mlflow.pyfunc.load_model(…).predict(…)` draws.",
    ]
    return "\n".join(lines)


class _Pyfunc:
    """MLflow's pyfunc flavour, less the trial run of the example: that would load torch here."""

    __name__ = "mlflow.pyfunc"

    @staticmethod
    def save_model(path: str, validate_serving_input: bool, **kwargs: Any) -> None:
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(path, **kwargs)


def _requirements() -> list[str]:
    names = ["torch", "numpy", "pandas", "pillow", "safetensors"]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _is_refusal(error: Exception, files: Path) -> bool:
    """Will the same record fail again tomorrow, or is the store away, busy or full today?

    Also a machine that has no memory, no threads or no place for temporary files fails today only. Of files
    only those that lie beside the journal, in `files`, are missing for good.
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


def _reason(error: Exception) -> str:
    """One line; MLflow wraps three exceptions around a refused connection."""
    text = str(error).strip() or type(error).__name__
    if said := re.search(r"\(sqlite3\.\w+\) (.+)", text):  # in the midst of SQLAlchemy's words
        return said[1][:200]
    text = text.splitlines()[0]
    for sign, reason in (
        ("timed out", "no answer in time"),
        ("NewConnectionError", "no connection"),
    ):
        if sign in text:
            return reason
    return text[:200]


def send(folder: Path) -> None:
    """The sender's life: deliver every few seconds, once more when stdin closes, then leave."""
    os.nice(10)
    closed = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=watch, daemon=True).start()
    header = RunHeader.load(folder)  # now: the journal is held by our parent
    while True:
        with _sole_sender(folder) as alone:
            if alone:
                _say(**_deliver_until(folder, header, closed))
                return
        # The sender of a process that was killed, or `cgan track flush`, is at it.
        closed.wait(0.5)
        time.sleep(0.2)


@contextlib.contextmanager
def _sole_sender(folder: Path) -> Iterator[bool]:
    """Hold the journal's `sender.lock`, if nobody does. True also where the journal is gone."""
    while True:
        try:
            lock = (folder / "sender.lock").open("w")
        except FileNotFoundError:
            yield True
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if os.fstat(lock.fileno()).st_nlink:  # else: removed, with its journal, in between
                yield True
                return


def _deliver_until(folder: Path, header: RunHeader, closed: threading.Event) -> dict[str, Any]:
    gc.disable()  # until it waits: a tenth of what MLflow's import takes is looking for garbage
    delivery = Delivery(folder, os.environ[STORE], project_root(), header)
    wait_s, told = POLL_S, False
    while True:
        last = closed.is_set()
        error = ""
        try:
            run_id = delivery.connect()
            if not told:
                _say(run_id=run_id)
                told = True
            delivery.deliver()
            wait_s = POLL_S
        except Exception as caught:
            log.warning("not delivered: %s", caught)
            error = _reason(caught)
            if not told:
                _say(error=error)
            wait_s = min(2 * wait_s, MAX_BACKOFF_S)
            last |= closed.is_set()
        if last:
            break
        gc.enable()
        closed.wait(wait_s)
    delivered = not error
    if delivered:
        _remove_if_finished(folder, delivery.offset)
    return {"delivered": delivered, "rejected": delivery.rejected, "error": error}


def _say(**facts: Any) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def flush(root: Path) -> list[str]:
    """Deliver every journal that waits; a line for each. Raises TrackingError if one still waits."""
    lines, failures = [], []
    for folder in waiting_journals(root):
        try:
            lines.append(flush_one(root, folder))
        except TrackingError as error:
            failures.append(str(error))
    if failures:
        raise TrackingError("\n".join([*lines, *failures]))
    return lines


def waiting_journals(root: Path) -> list[Path]:
    """Folders of all journals, those that a running stage is writing included."""
    return sorted(path.parent for path in journals(root).glob(f"*/{JOURNAL}"))


def flush_one(root: Path, folder: Path) -> str:
    """Deliver one journal and say so. Raises TrackingError when it cannot be delivered now."""
    header = RunHeader.load(folder)
    waiting = count_waiting(folder)
    # MLflow writes the address that it is told there, and the next journal may have another.
    told = {STORE: os.environ.get(STORE)}
    with (
        _environment({**client_settings(), **dict.fromkeys(FOREIGN_RUN), **told}),
        _sole_sender(folder) as alone,
    ):
        if not alone:
            return f"{header.run_name}: a running stage delivers it"
        uri = store_uri(root) if told[STORE] else header.tracking_uri
        delivery = Delivery(folder, uri, root, header)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its tracebacks: we tell the reason
        try:
            delivery.deliver()
        except Exception as error:
            raise TrackingError(
                f"{header.run_name}: MLflow at {without_credentials(uri)} is away ({_reason(error)}); "
                f"{waiting} records wait in {folder}. Start it and run `cgan track flush`. If it is gone "
                f"for good, {STORE}=… cgan track flush delivers them elsewhere, and rm -r '{folder}' "
                "drops them."
            ) from None
        _remove_if_finished(folder, delivery.offset)
    line = f"{header.run_name}: {waiting} records delivered to {without_credentials(uri)}"
    if delivery.rejected:
        line += (
            f"; of these, {delivery.rejected} were refused for good: {folder / REJECTED} says why"
        )
    return line


def _remove_if_finished(folder: Path, offset: int) -> None:
    """What was refused stays, with its files, for somebody to look at."""
    with contextlib.suppress(FileNotFoundError):  # somebody else did
        if not (folder / REJECTED).exists() and is_finished(folder):
            remove_if_unused(folder, offset)


def serve_ui(root: Path, port: int) -> None:
    """Become `mlflow ui` on the project's store. Raises TrackingError where a server keeps it."""
    uri = store_uri(root)
    if not _is_local(uri):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI names a server, {without_credentials(uri)}: open that in a browser."
        )
    with _locked(root / ".cgan" / "store.lock"), _environment(client_settings()):
        make_store(uri)
    settings = {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: everybody can read those
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(uri, root).as_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    os.execve(command[0], command, {**os.environ, **settings})


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}

    def apply(values: Mapping[str, str | None]) -> None:
        for key, value in values.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

    apply(changes)
    try:
        yield
    finally:
        apply(before)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    send(Path(sys.argv[1]))
