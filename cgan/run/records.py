"""A run's folder, `<home>/runs/<name>`: what a training records stays here until MLflow has it.

`run.json` says which run this is, `records.jsonl` holds one record a line, `files/` copies of pictures and
files, `cursor.json` how far the follower (`cgan.run.follower`) has sent them. A training's folder is
named by its fingerprint and holds its checkpoints too. Nothing here is removed but by the next training
(`tidy`).
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
from cgan.run.tracker import Tracker

log = logging.getLogger(__name__)

Record = dict[str, Any]
RECORDS = "records.jsonl"
CURSOR = "cursor.json"
RESULT = "result.json"  # of a finished training: a copy of what DVC finds its run by
LOCK = "follower.lock"  # one process at a time sends a run's records
MAX_PARAM = 6000  # characters of a param's value that MLflow takes
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


def read_records(path: Path, offset: int = 0, limit: int | None = None) -> tuple[list[Record], int]:
    """Up to `limit` records from `offset`, and the offset behind them. A torn line is passed over."""
    records: list[Record] = []
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") or len(records) == limit:
                break
            offset += len(line)
            try:
                records += [json.loads(line)] if line.strip() else []
            except ValueError:
                log.warning("%s: passing over a damaged record", path)
    return records, offset


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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._descriptor = os.open(folder / RECORDS, flags, 0o644)
        for record in read_records(folder / RECORDS)[0]:
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
        record = {"kind": kind, "time_ms": time.time_ns() // 1_000_000, **content}
        with self._surviving():
            # The first line end closes a line that a full disk cut off.
            os.write(self._descriptor, b"\n" + json.dumps(record).encode() + b"\n")

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """What cannot be written is lost, with a warning."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                log.warning("%s: records of this run are lost from here on: %s", self.folder, error)
            self._failed = True

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.write("params", params={key: str(value) for key, value in params.items()})

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
                folder, file = self._new_folder(), f"{step}.png"
                Image.fromarray(image).save(folder / file, format="PNG", compress_level=1)
                self.write("image", name=name, step=step, file=f"{folder.name}/{file}")

    def log_file(self, path: Path, folder: str = "") -> None:
        with self._surviving():
            copy = self._new_folder()
            shutil.copyfile(path, copy / path.name)
            self.write("file", file=f"{copy.name}/{path.name}", folder=folder)

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

    def close(self) -> None:
        """Flush to the disk and close."""
        with self._surviving():
            os.fsync(self._descriptor)
        os.close(self._descriptor)


# --- what a folder says ---------------------------------------------------------------------------


def cursor(folder: Path) -> dict[str, Any]:
    """Where the follower is: `offset` in bytes, `run_id` and `experiment_id` once the run exists in the
    store, `error` after a failure. Without a usable file all is sent again, which changes nothing."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = {"offset": 0, **json.loads((folder / CURSOR).read_text(encoding="utf-8"))}
        if 0 <= known["offset"] <= (folder / RECORDS).stat().st_size:
            return known
    return {"offset": 0}


def count_waiting(folder: Path) -> int:
    """Records that are not known to be in the store."""
    with contextlib.suppress(OSError), (folder / RECORDS).open("rb") as file:
        file.seek(cursor(folder)["offset"])
        return sum(1 for line in file if line.strip())
    return 0


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


def training_lock(folder: Path) -> Path:
    """Held by the training of a fingerprint, in whichever checkout it works."""
    return folder.with_suffix(".lock")
