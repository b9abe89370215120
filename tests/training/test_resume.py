"""The stage train: killed at any point, or told to end, it is taken up and stays one run."""

import functools
import itertools
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, UNEVEN, Store, remade, uneven, wait_until, write_params

from cgan.base.files import read_json
from cgan.pipeline.project import DISCRIMINATOR, GENERATOR, LOSSES, PREVIEWS, PROBES, TRAINING
from cgan.stages import train
from cgan.training import loop


def results() -> dict[str, bytes]:
    files = [GENERATOR, DISCRIMINATOR, LOSSES, PROBES, *PREVIEWS.iterdir()]
    return {path.name: path.read_bytes() for path in files}


def told_to_end(number: int, what: str, steps: range, images_per_step: int) -> Iterator[int]:
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


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A training that was told to end hears no further signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_training_ended_at_any_point_is_one_run_trained_once(
    root: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_params(root, **TINY)
    write_params(root, **UNEVEN)
    write_params(root, train_judge={"total_kimg": 0.2}, train={"probes": 1})
    remade(uneven())
    train.main()
    undisturbed = results()
    assert read_json(TRAINING)["training_s"] > 0
    shutil.rmtree(".cgan")
    shutil.copy(empty_store, "mlflow.db")
    store = Store(root / "mlflow.db")
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
    ((_, *found),) = store.runs()
    assert found == [about["run_name"], "FINISHED"]
    assert "training_s" not in about, "no time of a part"


@pytest.mark.parametrize(("project", "result"), [("one", "b"), ("other", "a")])
def test_a_training_waits_for_one_here_or_of_its_result(
    project: str,
    result: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    begun = list[str]()

    def begin() -> None:
        with train.exclusive_training(tmp_path / "runs" / result):
            begun.append("second")

    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "one"))
    with ThreadPoolExecutor(1) as pool, train.exclusive_training(tmp_path / "runs/a"):
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / project))
        waiting = pool.submit(begin)
        wait_until(lambda: "Another training is running here" in caplog.text)
        begun.append("first")
    waiting.result()
    assert begun == ["first", "second"]
