"""The journal: whole lines, no repeats, nothing lost that was written, and never an exception."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgan.errors import TrackingError
from cgan.files import write_json
from cgan.tracking.journal import (
    CURSOR,
    JOURNAL,
    JournalTracker,
    RunHeader,
    all_records,
    count_waiting,
    delivered_offset,
    delivered_run,
    read_records,
    remove_if_unused,
    run_key_in,
)

HEADER = RunHeader("k1", "a run", "cgan", "sqlite:///mlflow.db")


def opened(folder: Path, *, resume: bool = True) -> JournalTracker:
    return JournalTracker(folder, HEADER, resume=resume)


def metrics_in(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (key, record["step"], value)
        for record in all_records(folder / JOURNAL)
        if record["kind"] == "metrics"
        for key, value in record["metrics"].items()
    ]


def test_resumed_training_journals_each_step_once(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for step in (50, 100, 150):
        first.log_metrics({"loss/generator": step / 2}, step)
    first.log_image("previews", np.zeros((4, 4), np.uint8), 100)
    first.close()

    second = opened(tmp_path)
    for step in (100, 150, 200):
        second.log_metrics({"loss/generator": step / 2, "progress/kimg": step / 10}, step)
        second.log_image("previews", np.zeros((4, 4), np.uint8), step)
    second.close()

    losses = [step for key, step, _ in metrics_in(tmp_path) if key == "loss/generator"]
    assert losses == [50, 100, 150, 200]
    assert [step for key, step, _ in metrics_in(tmp_path) if key == "progress/kimg"] == [
        100,
        150,
        200,
    ]
    images = [r["step"] for r in all_records(tmp_path / JOURNAL) if r["kind"] == "image"]
    assert images == [100, 150, 200]


def test_second_evaluation_is_journalled_though_its_step_is_known(tmp_path: Path) -> None:
    for value in (0.9, 0.95):
        tracker = opened(tmp_path, resume=False)
        tracker.log_metrics({"quality/conditional_accuracy": value}, 2500)
        tracker.close()
    assert [value for _, _, value in metrics_in(tmp_path)] == [0.9, 0.95]


def test_torn_last_line_costs_that_record_only(tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    tracker.log_metrics({"a": 1}, 1)
    tracker.log_metrics({"a": 2}, 2)
    tracker.close()
    path = tmp_path / JOURNAL
    os.truncate(path, path.stat().st_size - 9)

    tracker = opened(tmp_path)
    tracker.log_metrics({"a": 3}, 3)
    tracker.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgan.tracking.journal.log.warning", lambda *_: None)
        assert metrics_in(tmp_path) == [("a", 1, 1.0), ("a", 3, 3.0)]


def test_f51_value_that_is_not_finite_becomes_a_tag(tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    tracker.log_metrics({"loss/generator": float("nan"), "progress/kimg": 3.2}, 50)
    tracker.close()
    records = list(all_records(tmp_path / JOURNAL))
    assert {"not_finite.loss/generator": "nan at step 50"} in [r.get("tags") for r in records]
    assert metrics_in(tmp_path) == [("progress/kimg", 50, 3.2)]


def test_picture_survives_the_journal_bit_for_bit(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    tracker = opened(tmp_path)
    tracker.log_image("previews", picture, 1)
    tracker.close()
    (record,) = all_records(tmp_path / JOURNAL)
    with Image.open(tmp_path / "files" / record["file"]) as image:
        assert np.array_equal(np.asarray(image), picture)


def test_f54_full_disk_costs_records_and_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = opened(tmp_path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit: EFBIG
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        for step in range(20):
            tracker.log_metrics({"loss/generator": 1.0}, step)
        tracker.log_image("previews", np.zeros((300, 300), np.uint8), 1)
        tracker.log_file(Path(__file__))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert sum("records of this run are lost" in m for m in caplog.messages) == 1
    tracker.log_metrics({"loss/generator": 2.0}, 20)
    tracker.close()
    assert metrics_in(tmp_path)[-1] == ("loss/generator", 20, 2.0)


def test_sigkilled_process_loses_no_record_that_it_logged(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from cgan.tracking.journal import *\n"
        "t = JournalTracker(Path(sys.argv[1]), RunHeader('k', 'n', 'e', 'u'), resume=True)\n"
        "for step in range(100): t.log_metrics({'a': step}, step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [step for _, step, _ in metrics_in(tmp_path)] == list(range(100))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_f78_a_removal_that_was_killed_hides_nothing_of_the_next_journal(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "k1"
    first = opened(folder)
    for step in range(50):
        first.log_metrics({"a": 1}, step)
    first.close()
    size = (folder / JOURNAL).stat().st_size
    write_json(folder / CURSOR, {"offset": size})
    removed = []

    def dying(plain: Callable[..., None]) -> Callable[..., None]:
        def step(*args: Any, **kwargs: Any) -> None:
            if len(removed) == steps:
                raise KeyboardInterrupt
            removed.append(args)
            plain(*args, **kwargs)

        return step

    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    monkeypatch.setattr(shutil, "rmtree", dying(shutil.rmtree))
    with pytest.raises(KeyboardInterrupt):
        remove_if_unused(folder, size)
    monkeypatch.undo()

    second = opened(folder)
    for step in range(100):  # longer than the first one: its cursor would fit
        second.log_metrics({"b": 2}, step)
    second.close()
    waiting, _ = read_records(folder / JOURNAL, delivered_offset(folder))
    assert [record["metrics"] for record in waiting].count({"b": 2.0}) == 100


@pytest.mark.parametrize(
    "cursor", ["", "{", '{"offset": -1}', '{"offset": 9999999}', '{"offset": "x"}']
)
def test_a_cursor_that_is_damaged_delivers_all_again(tmp_path: Path, cursor: str) -> None:
    tracker = opened(tmp_path)
    tracker.log_metrics({"a": 1}, 1)
    tracker.close()
    (tmp_path / CURSOR).write_text(cursor)
    assert delivered_offset(tmp_path) == 0
    assert count_waiting(tmp_path) == 1


def test_the_run_is_known_once_something_was_delivered(tmp_path: Path) -> None:
    assert delivered_run(tmp_path) == {}
    write_json(tmp_path / CURSOR, {"offset": 5, "run_id": "ab12", "experiment_id": "3"})
    assert delivered_run(tmp_path) == {"run_id": "ab12", "experiment_id": "3"}
    write_json(tmp_path / CURSOR, {"offset": 5, "run_id": "ab12"})  # as it was before
    assert delivered_run(tmp_path) == {"run_id": "ab12"}
    for damaged in ("", "[]", '{"offset": 5}', '{"run_id": 7}'):
        (tmp_path / CURSOR).write_text(damaged)
        assert delivered_run(tmp_path) == {}


def test_f78_a_training_that_logs_its_model_again_after_a_kill_has_one(tmp_path: Path) -> None:
    for _ in range(2):
        tracker = opened(tmp_path)
        tracker.log_model(Path(__file__), 120, {"digest": "d"})
        tracker.close()
    assert [r["step"] for r in all_records(tmp_path / JOURNAL) if r["kind"] == "model"] == [120]


@pytest.mark.parametrize("damage", ["", '{"run_key": "k1"', "[]", '{"run_key": 1}', None])
def test_f80_a_training_writes_a_damaged_header_anew(tmp_path: Path, damage: str | None) -> None:
    opened(tmp_path).close()
    if damage is None:
        (tmp_path / "run.json").unlink()
    else:
        (tmp_path / "run.json").write_text(damage)
    with pytest.raises(TrackingError, match=rf"{tmp_path}/run.json .*rm -r"):
        RunHeader.load(tmp_path)
    assert opened(tmp_path).header == HEADER
    assert RunHeader.load(tmp_path) == HEADER


def test_a_resumed_training_keeps_the_header_that_its_run_began_with(tmp_path: Path) -> None:
    opened(tmp_path).close()
    later = replace(HEADER, run_name="an hour later", experiment="renamed")
    assert JournalTracker(tmp_path, later, resume=True).header == HEADER


def test_journal_in_use_or_grown_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "k1"
    tracker = opened(folder)
    tracker.log_metrics({"a": 1}, 1)
    size = (folder / JOURNAL).stat().st_size
    assert not remove_if_unused(folder, size)
    tracker.close()
    assert not remove_if_unused(folder, size - 1)
    assert remove_if_unused(folder, size)
    assert not folder.exists()


def test_run_key_stays_while_its_folder_does(tmp_path: Path) -> None:
    key = run_key_in(tmp_path / "a")
    assert run_key_in(tmp_path / "a") == key != run_key_in(tmp_path / "b")


def test_header_survives_its_file(tmp_path: Path) -> None:
    HEADER.save(tmp_path)
    assert RunHeader.load(tmp_path) == HEADER
    assert json.loads((tmp_path / "run.json").read_text())["run_id"] is None
