"""The stage train: killed at any point, or told to end, it is taken up and stays one run."""

import functools
import itertools
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Store, uneven, wait_until, write_csv, write_params

from cgan.files import locked, read_json
from cgan.pipeline.tracking import live
from cgan.project import (
    CSV,
    DISCRIMINATOR,
    GENERATOR,
    LOSSES,
    PREVIEWS,
    PROBES,
    TRAIN_LOCK,
    TRAINING,
)
from cgan.stages import preprocess, train, train_judge, validate
from cgan.training import loop


@pytest.fixture
def before(project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in which all has run that comes before the training; the store is `mlflow.db`."""
    monkeypatch.setattr(live, "PATIENCE_S", 240.0)  # a busy machine's store is no slow one
    shutil.copy(empty_store, "mlflow.db")
    Path("dvc.yaml").touch()  # it is a project
    write_csv(CSV, uneven())
    write_params(project, train_judge={"total_kimg": 0.2}, train={"probes": 1})
    for stage in (validate, preprocess, train_judge):
        stage.main()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield project
    for number, handler in handlers.items():
        signal.signal(number, handler)


def results() -> dict[str, bytes]:
    files = [GENERATOR, DISCRIMINATOR, LOSSES, PROBES, *PREVIEWS.iterdir()]
    return {path.name: path.read_bytes() for path in files}


def told_to_end(number: int, what: str, steps: range, images_a_step: int) -> Iterator[int]:
    """A progress in whose second step a signal comes, and more of them."""
    for step in steps:
        for _ in range(3 if step == steps[1] else 0):
            signal.raise_signal(number)
        yield step


class Killed(BaseException):
    """SIGKILL: nothing of ours catches it."""


def dying(plain: Callable[..., Any], last: int) -> Callable[..., Any]:
    """A function that does its work, and the `last` time is the process's last."""
    counted = itertools.count(1)

    def call(*arguments: Any, **options: Any) -> None:
        plain(*arguments, **options)
        if next(counted) == last:
            raise Killed

    return call


POINTS: list[tuple[Any, str, int]] = [  # in the order in which a training comes to them
    *((loop, "save_checkpoint", 1), (loop, "save_checkpoint", 1), (train, "write_outputs", 1)),
    *((train, "write_json", 1), (train, "write_json", 2)),
]


def test_a_training_ended_at_any_point_is_one_run_trained_once(
    before: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train.main()
    undisturbed = results()
    assert read_json(TRAINING)["numbers"]["time/training_s"] > 0
    shutil.rmtree(".cgan")
    shutil.copy(empty_store, "mlflow.db")
    store = Store(before / "mlflow.db")
    for number in (signal.SIGTERM, signal.SIGINT):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(train, "progress", functools.partial(told_to_end, number))
            train.main()
        assert ended.value.code == 128 + number
        assert [status for *_, status in store.runs()] == ["KILLED"]
    for owner, name, last in POINTS:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, dying(getattr(owner, name), last))
            train.main()
    with caplog.at_level(logging.INFO):
        train.main()
    assert "Resuming at step 10 of 10." in caplog.text
    assert results() == undisturbed
    about = read_json(TRAINING)
    assert store.runs() == [(about["run_id"], about["run_name"], "FINISHED")]
    assert about["numbers"] == {}, "no time of a part"


@pytest.mark.usefixtures("before")
def test_a_training_waits_for_the_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    is_held, begins = threading.Event(), list[bool]()
    monkeypatch.setattr(train, "keep_source", lambda tree: begins.append(is_held.is_set()))

    def hold() -> None:
        with locked(TRAIN_LOCK):
            is_held.set()
            wait_until(lambda: "Another training is running here" in caplog.text)
            time.sleep(0.2)
            is_held.clear()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        is_held.wait()
        train.main()
        held.result()
    assert begins == [False]
