"""A training in MLflow while it goes on: what arrives, and that nobody waits long for it."""

import hashlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tracked
from conftest import free_port, wait_until
from tracked import PARAMS, STEPS, Store, log_steps, refusing, training
from tracked import root as root

from cgan.errors import Interrupted
from cgan.files import read_json
from cgan.pipeline.tracking import live as tracking
from cgan.pipeline.tracking.run import TrainingRecord, open_run
from cgan.project import TRAINING, training_folder

SAID = "cannot be used now"


def test_f64_a_run_can_be_watched_is_one_and_says_what_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "tasty-bole")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"prefect.flow_run_id": "f-1"}')
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    store, searches = Store(root / "mlflow.db"), list[object]()
    monkeypatch.setattr("cgan.pipeline.tracking.run.model_of", lambda *_: searches.append(1))
    with training() as live:
        log_steps(live, STEPS[:5])
        wait_until(lambda: store.steps("loss/generator") == STEPS[:5])
        assert [status for _, _, status in store.runs()] == ["RUNNING"]
        log_steps(live, STEPS[5:])
    assert os.environ["MLFLOW_RUN_ID"] == "0" * 32 and "MLFLOW_TRACKING_URI" not in os.environ
    ((run_id, name, status),) = store.runs()
    about = read_json(TRAINING)
    assert run_id == about["run_id"] != "0" * 32, "MLFLOW_RUN_ID is somebody else's"
    assert status == "FINISHED" and name == about["run_name"]
    assert name.startswith(f"seed {PARAMS.train.seed} · ") and " · tasty-bole · " in name
    for key in ("loss/generator", "progress/kimg"):
        assert store.steps(key) == STEPS
    query = "select e.name from experiments e join runs using (experiment_id)"
    assert store.rows(query) == [("mine",)]
    assert store.rows("select name, digest from datasets") == [("sample", "ab" * 6)]
    logged = store.params(run_id)
    assert logged["train.lr"] == str(PARAMS.train.lr) and "tracking.experiment" not in logged
    made_by = {"cgan.device": "cpu", "dvc.exp_name": "tasty-bole", "data": "MNIST sample"}
    made_by |= {"prefect.flow_run_id": "f-1", "cgan.run_key": about["run_key"]}
    assert made_by.items() <= store.tags(run_id).items()
    assert list((root / "mlartifacts").rglob("source/dvc.yaml"))
    assert not searches, "there is no model before the training's end"


def test_a_failed_training_resumes_in_its_run_in_another_checkout_and_with_other_params_of_the_gate(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(root / "mlflow.db")
    with pytest.raises(ZeroDivisionError), training() as live:
        log_steps(live, STEPS[:5])
        raise ZeroDivisionError("loss at step 500")
    ((run_id, name, status),) = store.runs()
    assert status == "FAILED" and not TRAINING.exists()
    assert store.tags(run_id)["cgan.ended_by"] == "ZeroDivisionError: loss at step 500"
    gate = PARAMS.gate.model_copy(update={"promote": not PARAMS.gate.promote})
    monkeypatch.setattr(tracked, "PARAMS", PARAMS.model_copy(update={"gate": gate}))
    checkout = root / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    monkeypatch.setenv("CGAN_HOME", str(root / ".cgan"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    with training() as live:
        log_steps(live, STEPS[3:])  # from its last checkpoint
        wait_until(lambda: [status for _, _, status in store.runs()] == ["RUNNING"])
    assert store.runs() == [(run_id, name, "FINISHED")]
    assert store.steps("loss/generator") == STEPS
    tags = store.tags(run_id)
    assert tags["cgan.resumed"] == "true" and "cgan.ended_by" not in tags


def test_a_training_that_dvc_knows_is_trained_anew_in_another_run(root: Path) -> None:
    for _ in range(2):
        with training() as live:
            log_steps(live)
        (training_folder("k1") / "step-1.safetensors").touch()
        md5 = hashlib.md5(TRAINING.read_bytes(), usedforsecurity=False).hexdigest()
        (root / "dvc.lock").write_text(
            f"stages: {{train: {{outs: [{{md5: {md5}, path: {TRAINING}}}]}}}}"
        )
    store = Store(root / "mlflow.db")
    assert len(store.runs()) == 2 and store.steps("loss/generator") == sorted(2 * STEPS)
    with training():
        assert not (training_folder("k1") / "step-1.safetensors").exists(), "nothing is resumed"


@pytest.mark.parametrize(
    "damage", ["[]", '{"run_key": "../k"}', '{"run_name": "another"}', '{"run_ke', None]
)
def test_f80_what_a_training_noted_at_its_begin_is_written_anew_where_it_is_damaged(
    root: Path, damage: str | None
) -> None:
    note = training_folder("k1") / "run.json"
    note.parent.mkdir(parents=True)
    if damage:
        note.write_text(damage)
    with training() as live:
        log_steps(live)
    assert note.read_bytes() == TRAINING.read_bytes()
    noted = read_json(TRAINING)
    assert noted["run_key"].isalnum() and noted["run_name"] != "another"
    assert "cgan.resumed" not in noted["tags"]


# ------------------------------------------------------------------------------ MLflow in trouble


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["away", "silent", "error 500"])
def test_f60_without_mlflow_a_training_waits_for_nothing_ends_in_time_and_says_so_once(
    root: Path,
    hanging: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "250")
    with refusing() as refused:
        addresses = {"silent": hanging, "error 500": f"http://{refused}"}
        address = addresses.get(kind, f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with training() as live:
            live._is_loaded.wait()
            began = time.monotonic()
            log_steps(live)
        waited = time.monotonic() - began
    assert waited < 120, "it did not wait for an answer; a busy machine takes its time"
    (message,) = [text for text in caplog.messages if SAID in text]
    assert message.startswith(f"MLflow at {address} {SAID} (")
    assert "training goes on" in message and "record" in message
    about = read_json(TRAINING)
    assert about["run_id"] is None and about["numbers"]


@pytest.mark.parametrize("trouble", ["slow", "dead"])
def test_f60_f61_an_mlflow_that_gets_slow_or_dies_in_mid_run_costs_no_more_than_one_that_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    from mlflow import MlflowClient

    plain, store = MlflowClient.log_batch, Store(root / "mlflow.db")
    released = threading.Event()

    def troubled(*args: Any, **options: Any) -> Any:
        if trouble == "dead":
            raise ConnectionError("refused")
        released.wait(240)
        return plain(*args, **options)

    monkeypatch.setattr(tracking, "PATIENCE_S", 0.5 if trouble == "slow" else 240)
    with monkeypatch.context() as patch:
        with training() as live:
            log_steps(live, [1])
            wait_until(lambda: store.steps("loss/generator"))
            patch.setattr(MlflowClient, "log_batch", troubled)
            log_steps(live, [2])
            began = time.monotonic()
        assert time.monotonic() - began < 120, "it did not wait for the answer"
        released.set()
        live._thread.join(240)
    assert not live._thread.is_alive()
    words = "no answer in time" if trouble == "slow" else "refused"
    assert caplog.text.count(f"{SAID} ({words})") == 1
    assert store.steps("loss/generator") == ([1, 2] if trouble == "slow" else [1])


def test_what_somebody_stopped_is_killed_and_has_not_failed(root: Path) -> None:
    with pytest.raises(Interrupted), training():
        raise Interrupted("stopped by SIGTERM")
    ((_, _, status),) = Store(root / "mlflow.db").runs()
    assert status == "KILLED"


def test_more_finite_numbers_than_mlflow_takes_at_once_arrive(
    root: Path,
) -> None:
    """And of pictures those of each step, of which 1 is no beginning of 10."""
    about = TrainingRecord(run_key="k", run_name="a", experiment="cgan", began_ms=1)
    losses = [("loss/generator", math.nan if step == 7 else 1.0, step, 1) for step in range(1002)]
    with open_run(about) as run:
        run.log_metrics(losses)
    for step in (10, 1):
        with open_run(about) as run:
            run.log_image("first", np.zeros((8, 8), np.uint8), step, 1)
    store = Store(root / "mlflow.db")
    assert store.steps("loss/generator") == [step for step in range(1002) if step != 7]
    assert store.pictures() == ["first+step+1", "first+step+10"]
