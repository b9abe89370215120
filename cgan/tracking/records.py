"""A run's folder, `<home>/runs/<name>`: what a training records stays here, whether MLflow has it or not.

`run.json` says which run this is, `records.jsonl` holds one record a line, each with its time, `files/`
copies of pictures and files. A record of the kind `sent` says up to which offset MLflow has them. A
training's folder is named by its fingerprint and holds its checkpoints too.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cgan.errors import TrackingError
from cgan.project import TRAIN_AGAIN, home

Record = dict[str, Any]
# Which MLflow run records belong to: run_key, run_name, experiment, tracking_uri (without credentials), and
# under `origin` what the training was made from.
RunInfo = dict[str, Any]

RUN, RECORDS, SENT = "run.json", "records.jsonl", "sent"


def read_info(path: Path) -> RunInfo:
    """Of a folder's `run.json`, or of what the stage train left. Raises TrackingError where there is none."""
    with contextlib.suppress(OSError, ValueError):
        info = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(info, dict) and str(info.get("run_key")).isalnum():  # else it leads outside
            return info
    raise TrackingError(
        f"{path}: names no MLflow run. Restore it (`dvc checkout`, or a backup), or train: {TRAIN_AGAIN}."
    )


def runs() -> Path:
    return home() / "runs"


def folder_of(run_key: str) -> Path:
    """The folder of a run that is known by its key: its training's, or one of its own."""
    for path in runs().glob(f"*/{RUN}"):
        with contextlib.suppress(TrackingError):
            if read_info(path)["run_key"] == run_key:
                return path.parent
    return runs() / run_key


def training_lock(folder: Path) -> Path:
    """Held by the training of a fingerprint, in whichever checkout it works."""
    return folder.with_suffix(".lock")


def append(folder: Path, kind: str, /, **content: Any) -> None:
    """Write one record. Raises OSError."""
    record = {"kind": kind, "time_ms": time.time_ns() // 1_000_000, **content}
    with (folder / RECORDS).open("ab", buffering=0) as file:
        # The first line end closes a line that a full disk, or a kill, cut off.
        file.write(b"\n" + json.dumps(record).encode() + b"\n")
        if kind == "end":
            os.fsync(file.fileno())


def read_records(folder: Path) -> tuple[list[Record], list[Record], int]:
    """The records that MLflow has, those that wait, and the offset behind. A torn line is passed over."""
    ends, offset, sent, latest = dict[int, Record](), 0, 0, 0
    with contextlib.suppress(FileNotFoundError), (folder / RECORDS).open("rb") as file:
        for line in file:
            offset += len(line)
            with contextlib.suppress(ValueError):
                record = ends[offset] = json.loads(line)
                # A clock that is set back ends no run before it began.
                latest = record["time_ms"] = max(latest, record["time_ms"])
                if record["kind"] == SENT:
                    sent = max(sent, ends.pop(offset)["offset"])
    before = [record for end, record in ends.items() if end <= sent]
    return before, [*ends.values()][len(before) :], offset
