"""Runs in a real MLflow store: what arrives, that it arrives once, and that nobody waits long for it."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tracked
import urllib3.util.connection
from conftest import free_port
from tracked import (
    DATASET,
    FITTED,
    PARAMS,
    STEPS,
    Store,
    log_model,
    log_steps,
    mlflow_server,
    training,
)
from tracked import root as root

from cgan.errors import TrackingError
from cgan.tracking import runs as tracking
from cgan.tracking.records import RECORDS, read_records, runs
from cgan.tracking.runs import Run, flush, reopen, send
from cgan.tracking.store import RUN_ID, open_store, store_uri

PROMISED_S = 5  # that an outage may cost a training
SLOW_S = 0.3  # that each call takes, of an MLflow that has become slow


def waiting_run(root: Path, key: str = "k1", uri: str | None = None) -> Path:
    """A training that has ended and whose records nobody sent yet."""
    folder = runs() / key
    info = {"run_key": key, "run_name": "a run", "experiment": "cgan"}
    tracker = Run(folder, {**info, "tracking_uri": uri or store_uri(root)})
    tracker.is_live = False
    tracker.write("start", params={"train.lr": "0.003"})
    tracker.write("dataset", facts=DATASET)
    log_steps(tracker)
    tracker.log_file(Path(__file__), "reports")
    tracker.write("end", status="FINISHED")
    log_model(tracker, root)
    return folder


def count(folder: Path) -> int:
    return len(read_records(folder)[1])


def pictures(root: Path) -> list[str]:
    """Key and step of each that the store has in full size."""
    found = (root / "mlartifacts").rglob("images/*.png")
    return sorted(path.name.partition("+timestamp")[0] for path in found)


# ------------------------------------------------------------------------------ what a run holds


def test_f64_run_is_one_finished_holds_each_step_once_and_says_what_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "tasty-bole")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"prefect.flow_run_id": "f-1"}')
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    store = Store(root / "mlflow.db")
    with training(root) as tracker:
        log_steps(tracker, STEPS[:5])
        assert store.steps("loss/generator") == STEPS[:5], "to be seen while it trains"
        log_steps(tracker, STEPS[5:])
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")  # later records stay with their run
    for home in (".cgan", "elsewhere"):  # another machine recorded the same
        monkeypatch.setenv("CGAN_HOME", str(root / home))
        with reopen() as later:
            later.log_metrics({"quality/conditional_accuracy": 0.99}, STEPS[-1])
            later.log_file(Path(__file__), "reports")
            later.set_tags({"mlflow.note.content": f"of {RUN_ID}"})
            log_model(later, root)
    assert os.environ["MLFLOW_RUN_ID"] == "0" * 32 and "MLFLOW_TRACKING_URI" not in os.environ
    assert not list(runs().glob("*/"))

    run_id = json.loads((root / "models/mlflow_run.json").read_text())["run_id"]
    assert run_id != "0" * 32, "MLFLOW_RUN_ID of the environment is somebody else's"
    ((found, name, status),) = store.runs()
    assert (found, status) == (run_id, "FINISHED")
    assert name.startswith(f"seed {PARAMS.train.seed} · ") and " · tasty-bole · " in name
    for key in ("loss/generator", "progress/kimg"):
        assert store.steps(key) == STEPS
    assert store.steps("quality/conditional_accuracy") == [STEPS[-1]]
    assert store.steps("system/cpu_utilization_percentage") == [STEPS[4], STEPS[-1]]
    query = "select e.name from experiments e join runs using (experiment_id)"
    assert store.rows(query) == [("mine",)]
    assert flush() == [] and pictures(root) == ["previews+step+250", "previews+step+500"]
    assert store.rows("select name, digest from datasets") == [("sample", "ab" * 6)]
    assert store.rows("select name, status from logged_models") == [("generator", 2)]
    shown = store.rows("select metric_name, metric_value from logged_model_metrics")
    assert shown == [("quality/conditional_accuracy", 0.99)], "on the model's page"
    logged = store.params(run_id)
    chosen = {name: str(value) for name, value in FITTED if getattr(PARAMS.train, name) == "auto"}
    chosen = {name: value for name, value in chosen.items() if not name.startswith("score_")}
    assert {name: logged[f"train.{name}"] for name in chosen} == chosen and len(chosen) > 4
    assert logged["train.lr"] == str(PARAMS.train.lr) and "tracking.experiment" not in logged
    made_by = {"cgan.device": "cpu", "dvc.exp_name": "tasty-bole", "data": "MNIST sample"}
    made_by |= {"prefect.flow_run_id": "f-1"}
    tags = store.tags(run_id)
    assert made_by.items() <= tags.items()
    assert tags["mlflow.note.content"] == f"of {run_id}"
    to_load = store.rows("select tag_value from logged_model_tags where tag_key = 'load'")
    assert to_load == [(f"runs:/{run_id}/generator",)]
    assert list((root / "mlartifacts").rglob(f"reports/{Path(__file__).name}"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/another.db")
    with reopen() as later:
        later.log_metrics({"quality/conditional_accuracy": 0.99}, STEPS[-1])
    assert [status for _, _, status in Store(root / "another.db").runs()] == ["FINISHED"]


def test_a_failed_training_resumes_in_its_run_in_another_checkout_and_with_other_params_of_the_gate(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(root / "mlflow.db")
    with pytest.raises(ZeroDivisionError), training(root) as tracker:
        log_steps(tracker, STEPS[:5])
        raise ZeroDivisionError("loss at step 500")
    ((run_id, _, status),) = store.runs()
    assert status == "FAILED"
    assert store.tags(run_id)["cgan.ended_by"] == "ZeroDivisionError: loss at step 500"
    assert flush() == [], "its folder may go one day"
    gate = PARAMS.gate.model_copy(update={"promote": not PARAMS.gate.promote})
    monkeypatch.setattr(tracked, "PARAMS", PARAMS.model_copy(update={"gate": gate}))
    checkout = root / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    monkeypatch.setenv("CGAN_HOME", str(root / ".cgan"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    with training(root) as tracker:
        log_steps(tracker, STEPS[3:])  # from its last checkpoint
        assert [status for _, _, status in store.runs()] == ["RUNNING"]
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    assert store.steps("loss/generator") == STEPS


# ------------------------------------------------------------------------------ once, and only once


class Killed(BaseException):
    """SIGKILL: nothing of ours catches it."""


CALLS = (
    *("create_run", "log_batch", "log_image", "log_inputs", "log_artifact", "set_terminated"),
    *("create_logged_model", "log_outputs", "log_model_artifacts", "finalize_logged_model"),
)
TROUBLES: dict[str, BaseException] = {  # in place of a kill before the call
    "create_run": ImportError("libXau.so: failed to map segment from shared object"),
    "log_batch": OSError(28, "No space left on device"),
    "create_logged_model": MemoryError(),
    "log_model_artifacts": ConnectionError("reset by peer"),
}


def ending_in(trouble: BaseException, plain: Callable[..., Any] | None) -> Callable[..., None]:
    def call(*args: Any, **options: Any) -> None:
        if plain:
            plain(*args, **options)
        raise trouble

    return call


@pytest.mark.parametrize("served", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_f61_f91_a_sender_killed_or_in_trouble_at_any_call_loses_and_doubles_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    """On a SQLite file, and on MLflow's server."""
    from mlflow import MlflowClient

    with mlflow_server(root, free_port()) if served else contextlib.nullcontext("") as site:
        if site:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", site)
        folder = waiting_run(root)
        for call, after in itertools.product(CALLS, (False, True)):
            trouble = Killed() if after else TROUBLES.get(call, Killed())
            plain = getattr(MlflowClient, call) if after else None
            with monkeypatch.context() as patch, pytest.raises((Killed, TrackingError)) as caught:
                patch.setattr(MlflowClient, call, ending_in(trouble, plain))
                send(folder)
            waits = f"records wait in {folder}" in str(caught.value)
            assert waits is not isinstance(trouble, Killed)
        assert count(folder)
        send(folder)
        assert count(folder) == 0
        with (folder / RECORDS).open("r+b") as records:  # the mark got lost with the power
            records.truncate(records.read().index(b'{"kind": "sent"'))
        assert send(folder)
    store = Store(root / "mlflow.db")
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    assert store.steps("loss/generator") == STEPS
    assert pictures(root) == ["previews+step+500"]
    assert store.rows("select name, status from logged_models") == [("generator", 2)]
    assert store.rows("select count(*) from inputs where destination_type = 'RUN'") == [(1,)]


@pytest.mark.slow
def test_f62_two_first_contacts_at_once_make_one_store(root: Path) -> None:
    (root / "mlflow.db").unlink()
    for key in ("k1", "k2"):
        waiting_run(root, key)
    command = [sys.executable, "-m", "cgan.cli", "track", "flush"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    store = Store(root / "mlflow.db")
    assert len(store.runs()) == 2
    assert store.rows("select name from experiments where name = 'cgan'") == [("cgan",)]
    assert store.steps("loss/generator") == sorted(2 * STEPS)


def test_f79_f80_each_run_that_cannot_be_sent_is_told_and_kept_and_the_others_arrive(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    damaged, foreign, own = (
        waiting_run(root, key, uri) for key, uri in (("a", None), ("b", gone), ("c", None))
    )
    (damaged / "run.json").write_text('{"run_key": "a", "run_na')
    kept = {path: path.read_bytes() for path in (damaged / RECORDS, foreign / RECORDS)}
    with pytest.raises(TrackingError) as told:
        flush()
    delivered, first, second = str(told.value).splitlines()
    assert delivered == f"{own}: delivered" and count(own) == 0
    assert str(damaged / "run.json") in first
    assert gone in second and str(foreign) in second and "cgan track flush" in second
    assert {path: path.read_bytes() for path in kept} == kept
    shutil.rmtree(damaged)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    (line,) = flush()
    assert "delivered" in line and count(foreign) == 0


@pytest.mark.parametrize("lost", ["the store", "the run"])
def test_what_a_store_lost_is_sent_again_with_what_comes_later(
    root: Path, empty_store: Path, lost: str
) -> None:
    folder = waiting_run(root)
    first = send(folder)
    assert first and count(folder) == 0
    if lost == "the store":
        shutil.copyfile(empty_store, root / "mlflow.db")
    else:
        open_store(store_uri(root)).delete_run(first.info.run_id)
    tracker = Run(folder, {})
    tracker.log_metrics({"quality/recall": 0.5}, 0)
    second = send(folder)
    assert second and second.info.run_id != first.info.run_id
    client = open_store(store_uri(root))
    run = client.get_run(second.info.run_id)
    assert (run.info.status, run.data.params["train.lr"]) == ("FINISHED", "0.003")
    history = client.get_metric_history(second.info.run_id, "loss/generator")
    assert sorted(point.step for point in history) == STEPS
    assert run.data.metrics["quality/recall"] == 0.5


# ------------------------------------------------------------------------------ MLflow in trouble


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["away", "silent"])
def test_f60_without_mlflow_a_training_ends_in_time_says_so_once_and_is_delivered_later(
    root: Path,
    hanging: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    connect, asked = urllib3.util.connection.create_connection, itertools.count()

    def counted(*args: Any, **options: Any) -> Any:
        next(asked)
        return connect(*args, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", counted)
    address = hanging if kind == "silent" else f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with training(root) as tracker:
        for first in range(0, len(STEPS), 2):
            log_steps(tracker, STEPS[first : first + 2])
    # By the clock a busy machine would fail.
    assert 0 < next(asked) * tracking.ANSWER_S < PROMISED_S

    monkeypatch.setattr(open_store, "__defaults__", (2,))  # seconds for an answer, not ten
    folder = runs() / "k1"
    (message,) = [text for text in caplog.messages if "cannot be used now" in text]
    assert str(folder) in message and "cgan track flush" in message
    reference = json.loads((root / "models/mlflow_run.json").read_text())
    assert (reference["run_id"], reference["tracking_uri"]) == (None, address)
    with reopen() as later:
        later.log_metrics({"quality/recall": 0.5}, 0)
    assert f"{count(folder)} records wait in {folder}" in caplog.messages[-1]
    with pytest.raises(TrackingError, match="cannot be used now"):
        flush()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    with reopen():
        pass
    store = Store(root / "mlflow.db")
    assert store.steps("loss/generator") == STEPS and store.steps("quality/recall") == [0]
    assert store.runs()[0][2] == "FINISHED"
    assert flush() == []


@pytest.mark.parametrize("trouble", ["slow", "dead"])
def test_f60_f61_an_mlflow_that_gets_slow_or_dies_in_mid_run_costs_no_more_than_one_that_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    from mlflow import MlflowClient

    plain, calls = MlflowClient.log_batch, itertools.count()

    def troubled(*args: Any, **options: Any) -> Any:
        if next(calls) > 10 and trouble == "dead":
            raise ConnectionError("refused")
        time.sleep(SLOW_S * (trouble == "slow"))
        return plain(*args, **options)

    monkeypatch.setattr(tracking, "PATIENCE_S", 1.5 if trouble == "slow" else 60)
    steps, store = list(range(1, 40)), Store(root / "mlflow.db")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", troubled)
        with training(root) as tracker:
            for step in steps:
                log_steps(tracker, [step])
            log_model(tracker, root)
    assert trouble == "dead" or 0 < next(calls) * SLOW_S < PROMISED_S
    words = "no answer in time" if trouble == "slow" else "refused"
    assert caplog.text.count(f"cannot be used now ({words})") == 1
    assert (trouble == "dead") <= len(store.steps("loss/generator")) < len(steps)
    flush()
    assert store.steps("loss/generator") == steps
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    assert pictures(root) == sorted(f"previews+step+{step}" for step in steps)
    assert store.rows("select name, status from logged_models") == [("generator", 2)]


MIGRATION = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cgan.tracking.store import open_store

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if statement.startswith("ALTER TABLE"):
        os.kill(os.getpid(), signal.SIGKILL)

open_store("sqlite:///" + sys.argv[1])
"""


@pytest.mark.slow
def test_f95_a_kill_within_the_making_of_a_store_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", MIGRATION, str(path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert not path.exists()
    open_store(f"sqlite:///{path}")
    assert Store(path).rows("select count(*) from experiments") == [(1,)]


# ------------------------------------------------------------------- whose run a training goes on in


def test_a_training_that_dvc_knows_is_trained_anew_in_another_run_and_the_first_still_arrives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with training(root) as tracker:
        log_steps(tracker)
    reference = (root / "models/mlflow_run.json").read_bytes()
    md5 = hashlib.md5(reference, usedforsecurity=False).hexdigest()
    (root / "dvc.lock").write_text(f"stages: {{train: {{outs: [{{md5: {md5}}}]}}}}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    with training(root) as tracker:
        log_steps(tracker)
    flush()
    store = Store(root / "mlflow.db")
    assert len(store.runs()) == 2 and store.steps("loss/generator") == sorted(2 * STEPS)
