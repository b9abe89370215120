"""A run's records: whole lines, no repeats, nothing lost that was written, and never an exception."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_checkpoints import limited

from cgan.errors import TrackingError
from cgan.files import write_text
from cgan.tracking import records
from cgan.tracking.records import (
    RECORDS,
    Record,
    Run,
    RunInfo,
    read_records,
)

INFO = RunInfo("k1", "a run", "cgan", "sqlite:///mlflow.db")


def opened(folder: Path, *, resume: bool = True) -> Run:
    return Run(folder, INFO, resume=resume)


def all_records(folder: Path) -> list[Record]:
    return [record for _, record in read_records(folder)]


def metrics_in(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (key, record["step"], value)
        for record in all_records(folder)
        if record["kind"] == "metrics"
        for key, value in record["metrics"].items()
    ]


def test_torn_last_line_costs_that_record_only(tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    tracker.log_metrics({"a": 1}, 1)
    tracker.log_metrics({"a": 2}, 2)
    path = tmp_path / RECORDS
    os.truncate(path, path.stat().st_size - 9)

    tracker = opened(tmp_path)
    tracker.log_metrics({"a": 3}, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgan.tracking.records.log.warning", lambda *_: None)
        assert metrics_in(tmp_path) == [("a", 1, 1.0), ("a", 3, 3.0)]


def test_f51_value_that_is_not_finite_becomes_a_tag(tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    tracker.log_metrics({"loss/generator": float("nan"), "progress/kimg": 3.2}, 50)
    tags = [record.get("tags") for record in all_records(tmp_path)]
    assert {"not_finite.loss/generator": "nan at step 50"} in tags
    assert metrics_in(tmp_path) == [("progress/kimg", 50, 3.2)]


def test_f54_full_disk_costs_records_and_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = opened(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 200):
        for step in range(20):
            tracker.log_metrics({"loss/generator": 1.0}, step)
        tracker.log_image("previews", np.zeros((300, 300), np.uint8), 1)
        tracker.log_file(Path(__file__))
    assert sum("records of this run are lost" in m for m in caplog.messages) == 1
    tracker.log_metrics({"loss/generator": 2.0}, 20)
    assert metrics_in(tmp_path)[-1] == ("loss/generator", 20, 2.0)


def test_f78_a_training_that_logs_its_model_again_after_a_kill_has_one(tmp_path: Path) -> None:
    for _ in range(2):
        tracker = opened(tmp_path)
        tracker.log_model(Path(__file__), 120, {"digest": "d"})
        assert [r["step"] for r in all_records(tmp_path) if r["kind"] == "model"] == [120]


def test_a_file_of_code_that_holds_a_secret_is_no_model_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Git's patch of it is left out, too: test_secrets."""
    package = tmp_path / "package"
    for name, text in (("errors.py", "KEY = 'planted-secret'"), ("files.py", "")):
        write_text(package / name, text)
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.setenv("SOME_TOKEN", "planted-secret")
    tracker = opened(tmp_path / "run")
    tracker.log_model(Path(__file__), 120, {"digest": "d"})
    copied = [path.name for path in (tmp_path / "run/files").rglob("*.py")]
    assert copied == ["files.py"]
    assert "errors.py is not kept with the model in MLflow: the value of SOME_TOKEN" in caplog.text


@pytest.mark.parametrize("damage", ["[]", json.dumps(asdict(INFO) | {"run_key": "../k"}), None])
def test_f80_a_training_writes_a_damaged_run_json_anew(tmp_path: Path, damage: str | None) -> None:
    opened(tmp_path)
    if damage is None:
        (tmp_path / "run.json").unlink()
    else:
        (tmp_path / "run.json").write_text(damage)
    with pytest.raises(TrackingError, match=rf"{tmp_path}/run.json .*rm "):
        RunInfo.load(tmp_path)
    assert opened(tmp_path).info == INFO == RunInfo.load(tmp_path)
    later = replace(INFO, run_name="an hour later", experiment="renamed")
    assert Run(tmp_path, later, resume=True).info == INFO
