"""A run's folder, `<home>/runs/<name>`: what a training records stays here, whether MLflow has it or not.

`run.json` says which run this is, `records.jsonl` holds one record a line, each with its time, `files/`
copies of pictures and files. A record of the kind `sent` says how much of those before it MLflow has. A
training's folder is named by its fingerprint and holds its checkpoints too. Nothing here is removed but by
the next training (`tidy`).
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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan import git
from cgan.errors import TrackingError
from cgan.files import locked, write_json
from cgan.project import PACKAGE, home
from cgan.tracking.tracker import Tracker

log = logging.getLogger(__name__)

Record = dict[str, Any]
RECORDS = "records.jsonl"
SENT = "sent"  # kind of a record: MLflow has all up to its `offset`
RESULT = "result.json"  # of a finished training: a copy of what DVC finds its run by
DIGITS = 6  # of a metric: what float32 has, and a page can show
# How long a run is kept that has ended and arrived (DVC may not know its result yet), or that was abandoned.
FINISHED_S = 3600.0
ABANDONED_S = 14 * 24 * 3600.0
# The code that a logged model carries: `serving.mlflow_model` and all that it imports, except the
# registry. A test compares.
DRAWING_CODE = (
    "__init__.py",
    "errors.py",
    "files.py",
    "project.py",
    "model/*.py",
    "serving/*.py",
)


@dataclass(frozen=True)
class RunInfo:
    """Which MLflow run a folder's records belong to. The store's URI has no credentials in it; `origin`
    says what the training was made from."""

    run_key: str
    run_name: str
    experiment: str
    tracking_uri: str
    origin: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, known: Mapping[str, Any]) -> RunInfo:
        """Raises KeyError, TypeError or ValueError where it is none."""
        names = ("run_key", "run_name", "experiment", "tracking_uri")
        texts = {name: str(known[name]) for name in names}
        if not texts["run_key"].isalnum():
            raise ValueError("the run's key leads outside")
        return cls(**texts, origin=dict(known.get("origin") or {}))

    @classmethod
    def load(cls, folder: Path) -> RunInfo:
        """Raises TrackingError when `run.json` is missing or damaged."""
        path = folder / "run.json"
        try:
            return cls.read(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            raise TrackingError(
                f"{path} is missing or damaged: it says which run the records in this folder belong to. "
                f"Restore it from a backup, or remove the records: rm '{folder / RECORDS}'"
            ) from None


def runs(root: Path | None = None) -> Path:
    return home(root) / "runs"


def folder_of(run_key: str) -> Path:
    """The folder of a run that is known by its key: its training's, or one of its own."""
    for path in runs().glob("*/run.json"):
        with contextlib.suppress(TrackingError):
            if RunInfo.load(path.parent).run_key == run_key:
                return path.parent
    return runs() / run_key


def training_lock(folder: Path) -> Path:
    """Held by the training of a fingerprint, in whichever checkout it works."""
    return folder.with_suffix(".lock")


def append(to: Path, kind: str, /, **content: Any) -> None:
    """Write one record to the folder `to`. Raises OSError."""
    record = {"kind": kind, "time_ms": time.time_ns() // 1_000_000, **content}
    with (to / RECORDS).open("ab", buffering=0) as file:
        # The first line end closes a line that a full disk, or a kill, cut off.
        file.write(b"\n" + json.dumps(record).encode() + b"\n")
        if kind == "end":
            os.fsync(file.fileno())


def read_records(folder: Path) -> list[tuple[int, Record]]:
    """Each record, with the offset behind it. A torn line is passed over."""
    records, offset = [], 0
    with contextlib.suppress(FileNotFoundError), (folder / RECORDS).open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            try:
                records += [(offset, json.loads(line))] if line.strip() else []
            except ValueError:
                log.warning("%s: passing over a damaged record", folder / RECORDS)
    return records


def unsent(folder: Path, start: int = 0) -> tuple[list[Record], int]:
    """The records behind `start` that MLflow is not known to have, and the offset behind the last one."""
    records = read_records(folder)
    start = max([start, *(each["offset"] for _, each in records if each["kind"] == SENT)])
    left = [(end, each) for end, each in records if end > start and each["kind"] != SENT]
    return [each for _, each in left], left[-1][0] if left else start


def count_waiting(folder: Path) -> int:
    return len(unsent(folder)[0])


def waiting(root: Path | None = None) -> list[Path]:
    """Folders with records that wait, those that a running stage is writing included."""
    folders = sorted(path.parent for path in runs(root).glob(f"*/{RECORDS}"))
    return [folder for folder in folders if count_waiting(folder)]


def tidy(folder: Path) -> None:
    """Remove the folders beside this one of runs that have ended and arrived, or that nobody goes on with."""
    for other in set(folder.parent.glob("*/")) - {folder}:
        with contextlib.suppress(OSError), locked(training_lock(other), wait=False) as free:
            age_s = time.time() - max(path.stat().st_mtime for path in (other, *other.glob("*")))
            kept_s = FINISHED_S if (other / RESULT).is_file() else ABANDONED_S
            if free and age_s > kept_s and not count_waiting(other):
                # First what could be sent: the rest may be cut off.
                (other / RECORDS).unlink(missing_ok=True)
                shutil.rmtree(other)


class Run(Tracker):
    """A Tracker that appends to a run's records. It never raises: on a full disk records are lost, no more.

    `resume`: a step that was recorded already is dropped, since a resumed training repeats the steps after
    its checkpoint. Without it the records are of an evaluation, and a number that is the same again, after
    a kill, is dropped. `info` is the one that the folder began with, where it has one.
    """

    def __init__(self, folder: Path, info: RunInfo, *, resume: bool) -> None:
        self.folder = folder
        self.result: dict[str, Any] = {}  # further facts for the file that names the run
        self.resumed = False
        self._resume = resume
        self._failed = False
        self._last: dict[tuple[str, str], tuple[int, float]] = {}  # step and value
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.info = RunInfo.load(folder)
        except TrackingError:  # none yet, or damaged
            self.info = info
            write_json(folder / "run.json", asdict(info))
        for _, record in read_records(folder):
            self.resumed |= record["kind"] == "start"
            for key, value in record.get("metrics", {}).items():
                self._is_new("metrics", key, record["step"], value)
            if record["kind"] in ("image", "model"):
                self._is_new(record["kind"], record.get("name", ""), record["step"])

    def _is_new(self, kind: str, name: str, step: int, value: float = 0.0) -> bool:
        """Was this not recorded before? Note that it is now."""
        last_step, last_value = self._last.get((kind, name), (-1, 0.0))
        is_new = step > last_step or (not self._resume and value != last_value)
        if is_new:
            self._last[kind, name] = step, value
        return is_new

    def write(self, kind: str, **content: Any) -> None:
        """Append one record."""
        with self._surviving():
            append(self.folder, kind, **content)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """What cannot be written is lost, with a warning."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                log.warning("%s: records of this run are lost from here on: %s", self.folder, error)
            self._failed = True

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.write("tags", tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values are rounded to DIGITS. One that is not finite becomes a tag, since charts cannot show it."""
        new = {}
        for key, exact in metrics.items():
            value = float(f"{exact:.{DIGITS}g}")
            if not math.isfinite(value):
                self.set_tags({f"not_finite.{key}": f"{value} at step {step}"})
            elif self._is_new("metrics", key, step, value):
                new[key] = value
        if new:
            self.write("metrics", step=step, metrics=new)

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        from PIL import Image

        if self._is_new("image", name, step):
            with self._surviving():
                file = self._new_folder() / f"{step}.png"
                Image.fromarray(image).save(file, format="PNG", compress_level=1)
                self.write("image", name=name, step=step, file=f"{file.parent.name}/{file.name}")

    def log_file(self, path: Path, folder: str = "") -> None:
        """A finished file; it is copied before the call returns."""
        with self._surviving():
            self.log_bytes(path.name, path.read_bytes(), folder)

    def log_bytes(self, name: str, content: bytes, folder: str) -> None:
        """A file of this name."""
        with self._surviving():
            file = self._new_folder() / name
            file.write_bytes(content)
            self.write("file", file=f"{file.parent.name}/{name}", folder=folder)

    def log_model(self, path: Path, step: int, facts: Mapping[str, Any]) -> None:
        """The generator file, and the code that draws with it as it is now; without files in which a secret's
        value stands."""
        if not self._is_new("model", "", step):
            return
        with self._surviving():
            folder = self._new_folder()
            for found in [each for name in DRAWING_CODE for each in PACKAGE.glob(name)]:
                if named := git.secrets_in(found.read_bytes()):
                    log.warning(
                        "%s is not kept with the model in MLflow: the value of %s stands in it.",
                        *(found, named),
                    )
                    continue
                copied = folder / "cgan" / found.relative_to(PACKAGE)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, copied)
            shutil.copyfile(path, folder / "generator.safetensors")
            self.write("model", step=step, facts=dict(facts), file=folder.name)

    def _new_folder(self) -> Path:
        """For a file of the run under its own name."""
        folder = self.folder / "files" / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        return folder
