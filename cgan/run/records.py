"""A run's folder, `<home>/runs/<name>`: what a training records stays here until MLflow has it.

`run.json` says which run this is, `records.jsonl` holds one record a line, `files/` copies of pictures and
files, `cursor.json` how far the follower (`cgan.run.follower`) has sent them. A training's folder is
named by its fingerprint and holds its checkpoints too. Nothing here is removed but by the next training
(`tidy`).
"""

from __future__ import annotations

import contextlib
import fcntl
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

from cgan.errors import TrackingError
from cgan.files import write_json
from cgan.project import PACKAGE, home
from cgan.run.tracker import Tracker

log = logging.getLogger(__name__)

Record = dict[str, Any]
RECORDS = "records.jsonl"
CURSOR = "cursor.json"
RESULT = "result.json"  # a copy of what a finished training wrote for DVC to find its run by
LOCK = "follower.lock"  # one process at a time sends a run's records
MAX_PARAM = 6000  # characters of a param's value that MLflow takes
DIGITS = 6  # of a metric: what float32 has, and a page can show
FINISHED_S = (
    3600.0  # how long a run is kept that has ended and arrived: DVC may not know its result yet
)
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
        info = cls(**texts, origin=dict(known.get("origin") or {}))
        if not info.run_key.isalnum():
            raise ValueError("the run's key leads outside")
        return info

    @classmethod
    def load(cls, folder: Path) -> RunInfo:
        """Raises TrackingError, which names the folder, when `run.json` is missing or damaged."""
        path = folder / "run.json"
        try:
            return cls.read(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise TrackingError(
                f"{path} does not say which run these records are of ({reason}). They stay there. Put the "
                f"file back from a backup, or remove the folder if they are not worth it: rm -r '{folder}'"
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


def all_records(folder: Path) -> Iterator[Record]:
    offset = 0
    while (folder / RECORDS).is_file():
        records, offset = read_records(folder / RECORDS, offset)
        if not records:
            return
        yield from records


class Run(Tracker):
    """A Tracker that appends to a run's records. It never raises: on a full disk records are lost, no more.

    `resume`: a step that was recorded already is dropped, since a resumed training repeats the steps after
    its checkpoint. Without it the records are of an evaluation: numbers that are the same again, after a
    kill, reach the store once. `info` is the one that the folder began with, where it has one.
    """

    def __init__(self, folder: Path, info: RunInfo, *, resume: bool) -> None:
        self.folder = folder
        self.result: dict[str, Any] = {}  # further facts for the file that names the run
        self._failed = False
        self._once = {} if resume else {"once": True}
        self._last_step: dict[tuple[str, str], int] = {}
        try:
            (folder / "files").mkdir(parents=True, exist_ok=True)
            try:
                self.info = RunInfo.load(folder)
            except TrackingError:  # none yet, or damaged
                self.info = info
                write_json(folder / "run.json", asdict(info))
            self._descriptor = os.open(
                folder / RECORDS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644
            )
        except OSError as error:
            raise TrackingError(
                f"{folder}: cannot be written ({error.strerror}). Give the project's folder `.cgan` write "
                "permission and space."
            ) from None
        os.set_inheritable(self._descriptor, False)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        self.resumed = False
        if resume:
            for record in all_records(folder):
                self.resumed |= record["kind"] == "start"
                self._is_new(record)

    def _is_new(self, record: Record) -> bool:
        """Note the record's steps; keep of a metrics record only what was not recorded before."""
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

    def write(self, kind: str, **content: Any) -> None:
        """Append one record."""
        line = json.dumps(
            {"kind": kind, "time_ms": time.time_ns() // 1_000_000, **content}
        ).encode()
        if self._descriptor < 0:
            return
        with self._surviving():
            line = b"\n" * self._torn + line + b"\n"
            self._torn = True
            self._torn = os.write(self._descriptor, line) != len(line)

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

        with self._surviving():
            target = self._new_file(f"{step}.png")
            Image.fromarray(image).save(target, format="PNG", compress_level=1)
            self.write(**record, file=target.name)

    def log_file(self, path: Path, folder: str = "") -> None:
        with self._surviving():
            self.write("file", file=self._copy(path), name=path.name, folder=folder)

    def log_dataset(self, facts: Mapping[str, Any]) -> None:
        """The data of the run: `name`, `path`, `sha256`, `rows`, and other facts."""
        self.write("dataset", facts=dict(facts))

    def log_model(self, path: Path, step: int, facts: Mapping[str, Any]) -> None:
        """The generator file, and the code that draws with it as it is now."""
        record: Record = {"kind": "model", "step": int(step), "facts": dict(facts)}
        if not self._is_new(record):
            return
        code = self._new_file("code")
        with self._surviving():
            for found in [each for name in DRAWING_CODE for each in PACKAGE.glob(name)]:
                copied = code / "cgan" / found.relative_to(PACKAGE)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, copied)
            self.write(**record, file=self._copy(path), code=code.name)

    def _new_file(self, name: str) -> Path:
        return self.folder / "files" / f"{uuid.uuid4().hex[:12]}-{name}"

    def _copy(self, path: Path) -> str:
        target = self._new_file(path.name)
        shutil.copyfile(path, target)
        return target.name

    def close(self) -> None:
        """Flush to the disk and close. Later calls do nothing."""
        if self._descriptor < 0:
            return
        with self._surviving():
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1


# --- what a folder says ---------------------------------------------------------------------------


def cursor(folder: Path) -> dict[str, Any]:
    """Where the follower is: `offset` in bytes, `run_id` and `experiment_id` once the run exists in the
    store, `error` after a failure. Without a usable file all is sent again, which changes nothing."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = dict(json.loads((folder / CURSOR).read_text(encoding="utf-8")))
    offset = found.get("offset")
    with contextlib.suppress(OSError):
        if isinstance(offset, int) and 0 <= offset <= (folder / RECORDS).stat().st_size:
            return found
    return {**found, "offset": 0}


def count_waiting(folder: Path) -> int:
    """Records that are not known to be in the store."""
    with contextlib.suppress(OSError), (folder / RECORDS).open("rb") as file:
        file.seek(cursor(folder)["offset"])
        return sum(1 for _ in file)
    return 0


def waiting(root: Path | None = None) -> list[Path]:
    """Folders with records that wait, those that a running stage is writing included."""
    folders = sorted(path.parent for path in runs(root).glob(f"*/{RECORDS}"))
    return [folder for folder in folders if count_waiting(folder)]


def is_finished(folder: Path) -> bool:
    """Has the run ended for good? A killed or failed one may be resumed."""
    status = ""
    for record in all_records(folder):
        if record["kind"] in ("start", "end"):
            status = record.get("status", "RUNNING")
        elif record["kind"] == "added":
            status = status or "FINISHED"
    return status == "FINISHED"


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of this file; False where another process does and `wait` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lock:  # who holds it may have written its number there
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def set_aside(folder: Path) -> None:
    """Make room for another training of the same fingerprint; what still waits there is sent from its new
    place."""
    # A follower that is still at work would go on in the new folder.
    with locked(folder / LOCK):
        folder.rename(folder.with_name(f"{folder.name}-{RunInfo.load(folder).run_key[:8]}"))


def tidy(folder: Path) -> None:
    """Remove the folders beside this one of runs that have ended and arrived, or that nobody goes on with."""
    for other in set(folder.parent.glob("*/")) - {folder}:
        with contextlib.suppress(OSError), locked(training_lock(other), wait=False) as free:
            age_s = time.time() - max(path.stat().st_mtime for path in (other, *other.glob("*")))
            kept_s = FINISHED_S if is_finished(other) else ABANDONED_S
            if free and age_s > kept_s and not count_waiting(other):
                # First what could be sent: the rest may be cut off.
                (other / RECORDS).unlink(missing_ok=True)
                shutil.rmtree(other)


def training_lock(folder: Path) -> Path:
    """Held by the training of a fingerprint, in whichever checkout it works."""
    return folder.with_suffix(".lock")
