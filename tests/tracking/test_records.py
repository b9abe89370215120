"""A run's records: whole lines, nothing lost that was written, and never an exception."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from test_checkpoints import limited

from cgan.errors import TrackingError
from cgan.tracking.records import RECORDS, SENT, append, read_info, read_records
from cgan.tracking.runs import Run

INFO = {"run_key": "k1", "run_name": "a run", "experiment": "cgan", "tracking_uri": "sqlite:///a"}


def metrics_in(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (key, record["step"], value)
        for record in read_records(folder)[1]
        for key, value in record.get("metrics", {}).items()
    ]


def test_torn_last_line_costs_that_record_only(tmp_path: Path) -> None:
    tracker = Run(tmp_path, INFO)
    tracker.log_metrics({"a": 1}, 1)
    tracker.log_metrics({"a": 2}, 2)
    path = tmp_path / RECORDS
    os.truncate(path, path.stat().st_size - 9)
    Run(tmp_path, INFO).log_metrics({"a": 3}, 3)
    assert metrics_in(tmp_path) == [("a", 1, 1.0), ("a", 3, 3.0)]


def test_f102_where_the_clock_is_set_back_the_times_of_a_run_stand_still_until_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, hour in (("start", 9), (SENT, 12), ("metrics", 10), ("end", 13)):
        monkeypatch.setattr("time.time_ns", lambda hour=hour: hour * 1_000_000)
        append(tmp_path, kind, offset=70)  # behind the first record
    before, left, _ = read_records(tmp_path)
    assert [[each["time_ms"] for each in found] for found in (before, left)] == [[9], [12, 13]]


def test_f51_value_that_is_not_finite_becomes_a_tag(tmp_path: Path) -> None:
    Run(tmp_path, INFO).log_metrics({"loss/generator": float("nan"), "progress/kimg": 3.2}, 50)
    tags = [record.get("tags") for record in read_records(tmp_path)[1]]
    assert {"not_finite.loss/generator": "nan at step 50"} in tags
    assert metrics_in(tmp_path) == [("progress/kimg", 50, 3.2)]


def test_f54_full_disk_costs_records_and_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Run(tmp_path, INFO)
    with limited(resource.RLIMIT_FSIZE, 200):
        for step in range(20):
            tracker.log_metrics({"loss/generator": 1.0}, step)
        tracker.log_image("previews", np.zeros((300, 300), np.uint8), 1)
        tracker.log_file(Path(__file__))
    assert sum("records of this run are lost" in m for m in caplog.messages) == 1
    tracker.log_metrics({"loss/generator": 2.0}, 20)
    assert metrics_in(tmp_path)[-1] == ("loss/generator", 20, 2.0)


@pytest.mark.parametrize("damage", ["[]", json.dumps(INFO | {"run_key": "../k"}), None])
def test_f80_a_training_writes_a_damaged_run_json_anew(tmp_path: Path, damage: str | None) -> None:
    Run(tmp_path, INFO)
    (tmp_path / "run.json").write_text(damage) if damage else (tmp_path / "run.json").unlink()
    with pytest.raises(TrackingError, match=rf"{tmp_path}/run.json: names no MLflow run"):
        read_info(tmp_path / "run.json")
    assert Run(tmp_path, INFO).info == INFO == read_info(tmp_path / "run.json")
    assert Run(tmp_path, INFO | {"run_key": "k2"}).info == INFO
