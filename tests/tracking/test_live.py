"""A training in MLflow while it goes on: what arrives, and that nobody waits long for it."""

import math
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import LOGGED, PARAMS, Store, free_port, log_steps, training, wait_until
from mlflow import MlflowClient

from cgan.base.errors import Interrupted
from cgan.base.files import read_json
from cgan.pipeline.project import TRAINING
from cgan.pipeline.tracking.run import TrainingRecord, open_run

SAID = "cannot be used"


def test_a_run_can_be_watched_is_one_and_says_what_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "tasty-bole")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"prefect.flow_run_id": "f-1"}')
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    store = Store(root / "mlflow.db")
    with training() as live:
        log_steps(live, LOGGED[:5])
        wait_until(lambda: store.steps("loss/generator") == LOGGED[:5])
        assert [status for _, _, status in store.runs()] == ["RUNNING"]
        log_steps(live, LOGGED[5:])
    ((run_id, name, status),) = store.runs()
    about = read_json(TRAINING)
    assert (name, status) == (about["run_name"], "FINISHED")
    assert name.startswith(f"seed {PARAMS.train.seed} · ") and " · tasty-bole · " in name
    for key in ("loss/generator", "progress/kimg"):
        assert store.steps(key) == LOGGED
    query = "select e.name from experiments e join runs using (experiment_id)"
    assert store.rows(query) == [("mine",)]
    assert store.rows("select name, digest from datasets") == [("sample", "ab" * 6)]
    logged = store.params(run_id)
    assert logged["train.lr"] == str(PARAMS.train.lr) and "tracking.experiment" not in logged
    made_by = {"cgan.device": "cpu", "dvc.exp_name": "tasty-bole", "data": "MNIST sample"}
    made_by |= {"prefect.flow_run_id": "f-1", "cgan.run_key": about["run_key"]}
    assert made_by.items() <= store.tags(run_id).items()
    assert list((root / "mlartifacts").rglob("source/dvc.yaml"))


def test_a_failed_or_stopped_training_resumes_in_its_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another checkout, and with other params of the gate."""
    store = Store(root / "mlflow.db")
    ends = {"FAILED": ZeroDivisionError("at step 500"), "KILLED": Interrupted("by SIGTERM")}
    for status, error in ends.items():
        with pytest.raises(type(error)), training() as live:
            log_steps(live, LOGGED[:5])
            raise error
        ((run_id, name, found),) = store.runs()
        assert found == status and not TRAINING.exists()
    gate = PARAMS.gate.model_copy(update={"promote": not PARAMS.gate.promote})
    monkeypatch.setattr("world.store.PARAMS", PARAMS.model_copy(update={"gate": gate}))
    checkout = root / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    monkeypatch.setenv("CGAN_HOME", str(root / ".cgan"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    with training() as live:
        log_steps(live, LOGGED[3:])  # from its last checkpoint
        wait_until(lambda: [status for _, _, status in store.runs()] == ["RUNNING"])
    assert store.runs() == [(run_id, name, "FINISHED")]
    assert store.steps("loss/generator") == LOGGED
    assert store.tags(run_id)["cgan.resumed"] == "true"


# ------------------------------------------------------------------------------ MLflow in trouble


@pytest.mark.parametrize("is_silent", [False, True], ids=["away", "silent"])
def test_without_mlflow_a_training_ends_in_time_and_says_so_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_silent: bool
) -> None:
    monkeypatch.setattr("cgan.pipeline.tracking.live.PATIENCE_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "250")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:  # answers nothing
        address = f"http://127.0.0.1:{listener.getsockname()[1] if is_silent else free_port()}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        with training() as live:
            log_steps(live)
        waited = time.monotonic() - began
    assert waited < 120, "it did not wait for an answer; a busy machine takes its time"
    (message,) = [text for text in caplog.messages if SAID in text]
    assert message.startswith(f"MLflow at {address} {SAID} (")
    assert message.endswith("sent by the stage record.")
    assert read_json(TRAINING)["training_s"]


def test_an_mlflow_that_gets_slow_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has taken by then arrives, and nothing after it."""
    store, plain, released = Store(root / "mlflow.db"), MlflowClient.log_batch, threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        released.wait(240)
        return plain(*args, **options)

    monkeypatch.setattr("cgan.pipeline.tracking.live.PATIENCE_S", 0.5)
    with training() as live:
        log_steps(live, [1])
        wait_until(lambda: store.steps("probe/fid_judge"))
        monkeypatch.setattr(MlflowClient, "log_batch", slow)
        log_steps(live, [2])
        began = time.monotonic()
    assert time.monotonic() - began < 120, "it did not wait for the answer"
    released.set()
    wait_until(lambda: store.steps("loss/generator") == [1, 2])
    assert caplog.text.count(f"{SAID} (TimeoutError)") == 1
    assert [status for _, _, status in store.runs()] == ["RUNNING"], "until it is recorded"


def test_more_numbers_than_mlflow_takes_at_once_arrive(root: Path) -> None:
    """All that are finite."""
    about = TrainingRecord(run_key="k", run_name="a", experiment="cgan", began_ms=1)
    losses = [("loss/generator", math.nan if step == 7 else 1.0, step, 1) for step in range(1002)]
    with open_run(about) as run:
        run.log_metrics(losses)
    store = Store(root / "mlflow.db")
    assert store.steps("loss/generator") == [step for step in range(1002) if step != 7]
