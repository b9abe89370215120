"""A run's records on disk, so that none is lost while the tracking server is away.

One folder a run, `.cgan/tracking/<run key>/`: `run.json` (where the records should go),
`journal.jsonl` (append only, one record a line), `files/` (copies of pictures and files) and
`cursor.json` (how far the journal is delivered; written by the deliverer). Writers append whole lines
with one `write` call, so that several processes may hold the same journal; each holds a shared lock
on it, and only who gets the exclusive lock may remove the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.errors import TrackingError
from cgan.files import sync_folder, write_json, write_text
from cgan.project import PACKAGE, home

log = logging.getLogger(__name__)

Record = dict[str, Any]
JOURNAL = "journal.jsonl"
CURSOR = "cursor.json"
MAX_PARAM = 6000  # characters of a param's value that MLflow takes
DIGITS = 6  # of a metric: what float32 has, and a page can show
# The code that a logged model carries: `serving.mlflow_model` and all that it imports, except the
# registry. A test compares.
DRAWING_CODE = (
    "__init__.py",
    "errors.py",
    "files.py",
    "model/__init__.py",
    "model/file_facts.py",
    "model/hardware.py",
    "model/model_file.py",
    "model/networks.py",
    "model/sampling.py",
    "project.py",
    "serving/__init__.py",
    "serving/class_names.py",
    "serving/generator.py",
    "serving/mlflow_model.py",
    "serving/picture.py",
    "serving/screen.py",
)


def journals(root: Path) -> Path:
    return home(root) / "tracking"


def run_key_in(folder: Path) -> str:
    """The run key kept in `folder` (a training's checkpoint folder), made at the first call.

    A resumed training finds its key there and continues the same run.
    """
    path = folder / "run_key"
    if path.is_file() and (key := path.read_text(encoding="utf-8").strip()).isalnum():
        return key
    key = uuid.uuid4().hex
    write_text(path, key)
    return key


@dataclass(frozen=True)
class RunHeader:
    """Where a journal's records belong. The URI has no credentials in it."""

    run_key: str
    run_name: str
    experiment: str
    tracking_uri: str
    run_id: str | None = None

    def save(self, folder: Path) -> None:
        write_json(folder / "run.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> RunHeader:
        """Raises TrackingError, which names the folder, when `run.json` is missing or damaged."""
        path = folder / "run.json"
        try:
            header = cls(**json.loads(path.read_text(encoding="utf-8")))
            texts = (header.run_key, header.run_name, header.experiment, header.tracking_uri)
            if all(isinstance(text, str) for text in texts):
                return header
            reason = "it is damaged"
        except FileNotFoundError:
            reason = "it is missing"
        except (ValueError, TypeError):
            reason = "it is damaged"
        except OSError as error:
            reason = str(error.strerror)
        raise TrackingError(
            f"{path} does not say which run these records are of ({reason}). They stay there. Put the file "
            f"back from a backup, or remove the folder if they are not worth it: rm -r '{folder}'"
        )


def read_records(path: Path, offset: int = 0, limit: int = 500) -> tuple[list[Record], int]:
    """Up to `limit` records from `offset`, and the offset behind them. A torn line is passed over."""
    records: list[Record] = []
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") or len(records) == limit:
                break
            offset += len(line)
            try:
                records.append(json.loads(line))
            except ValueError:
                if line.strip():
                    log.warning("%s: passing over a damaged record", path)
    return records, offset


def all_records(path: Path) -> Iterator[Record]:
    offset = 0
    while True:
        records, offset = read_records(path, offset)
        if not records:
            return
        yield from records


class JournalTracker:
    """A Tracker that appends to a run's journal. It never raises: on a full disk records are lost, no more.

    `resume`: a step already in the journal is dropped, since a resumed training repeats the steps
    after its checkpoint. Without it the records are of an evaluation: numbers that are the same
    again, after a kill, reach the store once.

    `header` is the one that the journal began with, where it has one. `origin`: what the run was made
    from, as it was when this process began, for whoever writes the run's reference.
    """

    def __init__(self, folder: Path, header: RunHeader, *, resume: bool) -> None:
        self.folder = folder
        self.header = header
        self.origin: dict[str, str] = {}
        self._lock = threading.Lock()
        self._failed = False
        self._once = {} if resume else {"once": True}
        self._descriptor = self._open(header)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        self._last_step: dict[tuple[str, str], int] = {}
        self.resumed = False
        if resume:
            for record in all_records(folder / JOURNAL):
                self.resumed |= record["kind"] == "start"
                self._is_new(record)
        os.set_inheritable(self._descriptor, False)

    def _open(self, header: RunHeader) -> int:
        while True:
            (self.folder / "files").mkdir(parents=True, exist_ok=True)
            try:
                self.header = RunHeader.load(self.folder)
            except TrackingError:  # none yet, or damaged
                header.save(self.folder)
            path = self.folder / JOURNAL
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                sync_folder(self.folder)
                return descriptor
            os.close(descriptor)  # a deliverer removed it in between

    def _is_new(self, record: Record) -> bool:
        """Note the record's steps; keep of a metrics record only what was not journalled before.

        A model's step too: a training that was killed after it had logged the model logs it again.
        """
        if record["kind"] == "metrics":
            fresh = {
                key: value
                for key, value in record["metrics"].items()
                if record["step"] > self._last_step.get(("metrics", key), -1)
            }
            self._last_step.update({("metrics", key): record["step"] for key in fresh})
            record["metrics"] = fresh
            return bool(fresh)
        if record["kind"] in ("image", "model"):
            key = (record["kind"], record.get("name", ""))
            if record["step"] <= self._last_step.get(key, -1):
                return False
            self._last_step[key] = record["step"]
        return True

    def last_step(self, prefix: str) -> int:
        """The highest journalled step of the metrics whose key starts with `prefix`, or -1."""
        steps = (step for (_, key), step in self._last_step.items() if key.startswith(prefix))
        return max(steps, default=-1)

    def write(self, kind: str, **content: Any) -> None:
        """Append one record."""
        line = json.dumps(
            {"kind": kind, "time_ms": time.time_ns() // 1_000_000, **content}
        ).encode()
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                line = b"\n" * self._torn + line + b"\n"
                self._torn = True
                self._torn = os.write(self._descriptor, line) != len(line)
            except OSError as error:
                self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            log.warning("%s: records of this run are lost from here on: %s", self.folder, error)
        self._failed = True

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.write("params", params={key: str(value) for key, value in params.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.write("tags", tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values are rounded to DIGITS. One that is not finite becomes a tag, since charts cannot show it."""
        values = {key: float(f"{value:.{DIGITS}g}") for key, value in metrics.items()}
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        if len(finite) < len(values):
            lost = values.keys() - finite.keys()
            self.set_tags({f"not_finite.{key}": f"{values[key]} at step {step}" for key in lost})
        record: Record = {"kind": "metrics", "step": int(step), "metrics": finite, **self._once}
        if self._is_new(record):
            self.write(**record)

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        record: Record = {"kind": "image", "name": name, "step": int(step)}
        if not self._is_new(record):
            return
        from PIL import Image

        target = self._new_file(f"{step}.png")
        try:
            Image.fromarray(image).save(target, format="PNG", compress_level=1)
        except OSError as error:
            self._warn(error)
            return
        self.write(**record, file=target.name)

    def log_file(self, path: Path, folder: str = "") -> None:
        if target := self._copy(path):
            self.write("file", file=target.name, name=path.name, folder=folder)

    def log_dataset(self, facts: Mapping[str, Any]) -> None:
        """The data of the run: `name`, `path`, `sha256`, `rows`, and other facts."""
        self.write("dataset", facts=dict(facts))

    def log_model(self, path: Path, step: int, facts: Mapping[str, Any]) -> None:
        """The generator file, and the code that draws with it as it is now."""
        record: Record = {"kind": "model", "step": int(step), "facts": dict(facts)}
        if not self._is_new(record):
            return
        code = self._new_file("code") / "cgan"
        target = self._copy(path)
        if target is None:
            return
        try:
            for name in DRAWING_CODE:
                (code / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PACKAGE / name, code / name)
        except OSError as error:
            self._warn(error)
            return
        self.write(**record, file=target.name, code=code.parent.name)

    def _new_file(self, name: str) -> Path:
        return self.folder / "files" / f"{uuid.uuid4().hex[:12]}-{name}"

    def _copy(self, path: Path) -> Path | None:
        target = self._new_file(path.name)
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            self._warn(error)
            return None
        return target

    def close(self) -> None:
        """Flush to the disk and close. Later calls do nothing."""
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._warn(error)
            os.close(self._descriptor)
            self._descriptor = -1


def remove_if_unused(folder: Path, offset: int) -> bool:
    """Remove a run's folder unless somebody holds its journal or it grew beyond `offset`.

    The cursor goes first: whoever is killed in the middle leaves a journal that is delivered again, which
    changes nothing, and never a cursor for the journal that comes after it.
    """
    try:
        descriptor = os.open(folder / JOURNAL, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_size != offset:
            return False
        (folder / CURSOR).unlink(missing_ok=True)
        (folder / JOURNAL).unlink()
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def delivered_offset(folder: Path) -> int:
    """How far, in bytes, the journal is known to be delivered. Without a usable cursor all of it is
    delivered again, which changes nothing."""
    try:
        offset = int(json.loads((folder / CURSOR).read_text(encoding="utf-8"))["offset"])
        return offset if 0 <= offset <= (folder / JOURNAL).stat().st_size else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def delivered_run(folder: Path) -> dict[str, str]:
    """Where the run is, `run_id` and `experiment_id`, once something of the journal was delivered."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = json.loads((folder / CURSOR).read_text(encoding="utf-8"))
        found = {key: known.get(key) for key in ("run_id", "experiment_id")}
        return {key: value for key, value in found.items() if isinstance(value, str)}
    return {}


def count_waiting(folder: Path) -> int:
    """Records that are not known to be delivered."""
    with contextlib.suppress(OSError), (folder / JOURNAL).open("rb") as file:
        file.seek(delivered_offset(folder))
        return sum(1 for _ in file)
    return 0


def is_finished(folder: Path) -> bool:
    """Has the run ended for good? A killed or failed one may be resumed and needs its journal."""
    status = "FINISHED"
    for record in all_records(folder / JOURNAL):
        if record["kind"] == "start":
            status = "RUNNING"
        elif record["kind"] == "end":
            status = record["status"]
    return status == "FINISHED"
