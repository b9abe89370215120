"""Runs in a real MLflow store: what arrives, that it arrives once, and that nobody waits for it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import torch
import tracked
from conftest import MLFLOWS_OWN_WARNINGS, free_port
from tracked import (
    DATASET,
    PARAMS,
    STEPS,
    Store,
    a_generator,
    log_steps,
    mlflow_server,
    training,
    wait_until,
)
from tracked import root as root

from cgan.errors import TrackingError
from cgan.run import lifecycle
from cgan.run.follower import flush, flush_one, start_follower
from cgan.run.records import (
    ABANDONED_S,
    FINISHED_S,
    RECORDS,
    RESULT,
    Run,
    RunInfo,
    count_waiting,
    runs,
    tidy,
)
from cgan.store.address import make_store, store_uri

pytestmark = MLFLOWS_OWN_WARNINGS


def waiting_run(
    root: Path, key: str = "k1", uri: str | None = None, status: str = "FINISHED"
) -> Path:
    """A training that has ended and whose records nobody sent yet."""
    folder = runs(root) / key
    header = RunInfo(key, "a run", "cgan", uri or store_uri(root))
    tracker = Run(folder, header, resume=True)
    tracker.write("start")
    tracker.log_params({"train.lr": 0.003})
    tracker.write("dataset", facts=DATASET)
    log_steps(tracker)
    tracker.log_model(a_generator(root / "generator.safetensors"), STEPS[-1], {"digest": "d"})
    tracker.write("end", status=status)
    tracker.close()
    if status == "FINISHED":
        (folder / RESULT).touch()
    return folder


# ------------------------------------------------------------------------------ what a run holds


def test_f64_run_is_one_finished_holds_each_step_once_and_says_what_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training and its evaluation on sqlite, by a follower started early."""
    monkeypatch.setenv("DVC_EXP_NAME", "tasty-bole")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"prefect.flow_run_id": "f-1"}')
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    store = Store(root / "mlflow.db")
    with training(root, early=start_follower()) as tracker:
        log_steps(tracker)
        wait_until(lambda: store.steps("system/cpu_utilization_percentage"))
        tracker.log_file(Path(__file__), "reports")
        tracker.log_model(a_generator(root / "g.safetensors"), STEPS[-1], {"digest": "d"})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")  # later records stay with their run
    for home in ("elsewhere", ".cgan"):  # another machine recorded the same
        monkeypatch.setenv("CGAN_HOME", str(root / home))
        with lifecycle.reopen() as later:
            later.log_metrics({"quality/conditional_accuracy": 0.99}, STEPS[-1])

    run_id = json.loads((root / "models/mlflow_run.json").read_text())["run_id"]
    assert run_id != "0" * 32, "MLFLOW_RUN_ID of the environment is somebody else's"
    ((found, name, status),) = store.runs()
    assert (found, status) == (run_id, "FINISHED")
    assert f" · MNIST sample · seed {PARAMS.train.seed} · tasty-bole · " in name
    for key in ("loss/generator", "progress/kimg"):
        assert store.steps(key) == STEPS
    assert store.steps("quality/conditional_accuracy") == [STEPS[-1]]
    assert store.steps("system/cpu_utilization_percentage")[0] == 0
    query = "select e.name from experiments e join runs using (experiment_id)"
    assert store.rows(query) == [("mine",)]
    assert count_waiting(runs(root) / "k1") == 0
    assert store.rows("select name, digest from datasets") == [("sample", "ab" * 6)]
    logged = store.params(run_id)
    assert logged["train.lr"] == str(PARAMS.train.lr) and "tracking.experiment" not in logged
    tags = store.tags(run_id)
    made_by = {"cgan.run_key": RunInfo.load(runs(root) / "k1").run_key, "cgan.device": "cpu"}
    made_by |= {"dvc.exp_name": "tasty-bole", "data": "MNIST sample"}
    made_by |= {"prefect.flow_run_id": "f-1", "torch.version": torch.__version__}
    assert made_by.items() <= tags.items()
    note = tags["mlflow.note.content"]
    assert note.startswith("accuracy ↑ **0.99**\n")
    assert f"(get-artifact?path=strip.png&run_uuid={run_id})" in note


# ------------------------------------------------------------------------------ once, and only once


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


@pytest.mark.slow
def test_a_failed_training_resumes_in_its_run_whatever_changed_in_sections_that_it_does_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(root / "mlflow.db")
    with pytest.raises(ZeroDivisionError), training(root) as tracker:
        log_steps(tracker, STEPS[:5])
        raise ZeroDivisionError("loss at step 500")
    flush(root)
    ((run_id, _, status),) = store.runs()
    assert status == "FAILED"
    assert store.tags(run_id)["cgan.ended_by"] == "ZeroDivisionError: loss at step 500"
    gate = PARAMS.gate.model_copy(update={"promote": not PARAMS.gate.promote})
    monkeypatch.setattr(tracked, "PARAMS", PARAMS.model_copy(update={"gate": gate}))
    with training(root) as tracker:
        log_steps(tracker, STEPS[5:])
    flush(root)
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    assert store.steps("loss/generator") == STEPS


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
        flush(root)
    delivered, first, second = str(told.value).splitlines()
    assert "sqlite" in delivered and count_waiting(own) == 0
    assert f"rm '{damaged / RECORDS}'" in first
    assert gone in second and str(foreign) in second and "cgan track flush" in second
    assert {path: path.read_bytes() for path in kept} == kept
    shutil.rmtree(damaged)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    (line,) = flush(root)
    assert "records delivered" in line and count_waiting(foreign) == 0


# ------------------------------------------------------------------------- a machine in trouble


TROUBLES = [
    MemoryError(),
    ImportError("libXau.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    FileNotFoundError(2, "No usable temporary directory found"),
    OSError(28, "No space left on device"),
]


def test_f91_what_the_machine_cannot_do_now_is_no_refusal_and_all_arrives_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = waiting_run(root)
    troubles = [("create_logged_model", trouble) for trouble in TROUBLES]
    for call, trouble in (*troubles, ("log_model_artifacts", ConnectionError("reset by peer"))):
        with monkeypatch.context() as patch:
            patch.setattr(f"mlflow.MlflowClient.{call}", Mock(side_effect=trouble))
            with pytest.raises(TrackingError, match=f"records wait in {folder}"):
                flush(root)
    (line,) = flush(root)
    assert "records delivered" in line and "refuses" not in line
    store = Store(root / "mlflow.db")
    assert store.steps("loss/generator") == STEPS
    assert store.rows("select name, status from logged_models") == [("generator", 2)]


def test_f91_a_refused_record_is_logged_and_holds_up_no_other(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = waiting_run(root)
    tracker = Run(folder, RunInfo.load(folder), resume=False)
    tracker.log_params({"train.lr": 0.1})
    tracker.log_metrics({"quality/fid_judge": 0.5}, 500)
    tracker.close()
    (picture,) = folder.glob("files/*/*.png")
    picture.unlink()
    (line,) = flush(root)
    assert "refuses 2" in line and flush(root) == []
    assert '"train.lr": "0.1"' in caplog.text and picture.name in caplog.text
    store = Store(root / "mlflow.db")
    assert (store.steps("quality/fid_judge"), store.steps("loss/generator")) == ([500], STEPS)
    assert store.params(store.runs()[0][0])["train.lr"] == "0.003"


MIGRATION = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cgan.store.address import make_store

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if statement.startswith("ALTER TABLE"):
        os.kill(os.getpid(), signal.SIGKILL)

make_store("sqlite:///" + sys.argv[1])
"""


@pytest.mark.slow
def test_f95_a_kill_within_the_making_of_a_store_leaves_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", MIGRATION, str(path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert not path.exists() and len(list(tmp_path.glob(".mlflow.db.*"))) >= 1
    make_store(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == [path]
    assert Store(path).rows("select count(*) from experiments") == [(1,)]
    before = path.stat().st_ino
    make_store(f"sqlite:///{path}")
    assert path.stat().st_ino == before


@pytest.mark.slow
def test_recording_loads_no_mlflow_into_the_training(root: Path) -> None:
    script = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parents[1])]}
from pathlib import Path
from tracked import training, log_steps
with training(Path.cwd()) as tracker:
    log_steps(tracker)
assert "mlflow" not in sys.modules and "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (runs(root) / "k1" / RECORDS).exists() or Store(root / "mlflow.db").runs()


@pytest.mark.parametrize("name", ["what?", "a%41b"])
def test_f93_a_path_that_a_database_s_address_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    odd = tmp_path / name / "project"
    with pytest.raises(TrackingError, match=r"in its path.*Rename that folder"):
        store_uri(odd)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    with pytest.raises(TrackingError, match="Rename that folder"):
        store_uri(odd)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    assert store_uri(odd) == f"sqlite:///{tmp_path}/runs.db"


def test_f93_a_store_lies_in_its_project_whatever_the_folder_is_called(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "100% ä'b\"c#d&e=f;g"
    project.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_store, project / "mlflow.db")
    folder = waiting_run(project)
    (line,) = flush(project)
    assert "records delivered" in line and count_waiting(folder) == 0
    assert Store(project / "mlflow.db").steps("loss/generator") == STEPS
    assert [path.name for path in tmp_path.iterdir()] == [project.name]


# ----------------------------------------------------------------------------- servers in trouble


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_f60_training_with_a_silent_server_ends_well_and_is_delivered_later(
    root: Path,
    hanging: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("cgan.store.address.HTTP_TIMEOUT_S", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging)
    caplog.set_level(logging.INFO)

    began = time.monotonic()
    with training(root) as tracker:
        log_steps(tracker)
        assert time.monotonic() - began < 1.5
    assert time.monotonic() - began < lifecycle.FINISH_S + 3

    folder = runs(root) / "k1"
    (message,) = [text for text in caplog.messages if "MLflow is away" in text]
    assert f"{count_waiting(folder)} records wait in {folder}" in message
    reference = json.loads((root / "models/mlflow_run.json").read_text())
    assert reference["run_id"] is None
    assert reference["tracking_uri"] == hanging
    with pytest.raises(TrackingError, match="away"):
        flush(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    flush(root)
    store = Store(root / "mlflow.db")
    assert store.steps("loss/generator") == STEPS
    assert store.runs()[0][2] == "FINISHED"
    assert flush(root) == []


def test_f60_training_fails_at_once_where_params_ask_for_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with (
        pytest.raises(TrackingError, match=r"tracking\.on_unreachable: spool"),
        training(root, on_unreachable="fail"),
    ):
        raise AssertionError("the training started")


@pytest.mark.slow
def test_f61_server_killed_and_restarted_in_mid_run_ends_up_with_each_step_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("cgan.store.address.HTTP_TIMEOUT_S", 2)
    store = Store(root / "mlflow.db")
    times = []

    def log(tracker: Run, steps: range) -> None:
        for step in steps:
            began = time.monotonic()
            tracker.log_metrics({"loss/generator": 1 / (step + 1)}, step)
            if step % 20 == 0:
                tracker.log_image("previews", np.full((28, 28), step % 256, np.uint8), step)
            times.append(time.monotonic() - began)
            time.sleep(0.01)

    with training(root) as tracker:
        with mlflow_server(root, port):
            log(tracker, range(100))
            wait_until(lambda: store.steps("loss/generator"))
        log(tracker, range(100, 200))
        with mlflow_server(root, port):
            log(tracker, range(200, 300))
            tracker.log_model(a_generator(root / "g.safetensors"), 300, {"digest": "d"})
            wait_until(lambda: count_waiting(runs(root) / "k1") == 0, 60)
    with mlflow_server(root, port):
        flush(root)
    assert store.steps("loss/generator") == list(range(300))
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
    steps = Counter(
        path.name.split("+")[2] for path in (root / "mlartifacts").rglob("images/*.png")
    )
    assert steps == {str(step): 1 for step in range(0, 300, 20)}
    assert store.rows("select name, status from logged_models") == [("generator", 2)]
    assert max(times) < 0.5


# ------------------------------------------------------------------- whose run a training goes on in


def run_keys(root: Path) -> list[str]:
    query = "select value from tags join runs using (run_uuid) where key = 'cgan.run_key' order by start_time"
    return [value for (value,) in Store(root / "mlflow.db").rows(query)]


def trained(root: Path) -> None:
    with training(root) as tracker:
        log_steps(tracker)


def test_a_training_that_dvc_knows_is_trained_anew_in_another_run_and_the_first_still_arrives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("cgan.store.address.HTTP_TIMEOUT_S", 1)
    monkeypatch.setattr(lifecycle, "FINISH_S", 1.0)
    trained(root)
    reference = (root / "models/mlflow_run.json").read_bytes()
    md5 = hashlib.md5(reference, usedforsecurity=False).hexdigest()
    (root / "dvc.lock").write_text(f"stages: {{train: {{outs: [{{md5: {md5}}}]}}}}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    trained(root)
    flush(root)
    assert len(set(run_keys(root))) == 2
    assert Store(root / "mlflow.db").steps("loss/generator") == sorted(2 * STEPS)


@pytest.mark.slow
def test_an_experiment_and_a_trial_have_a_run_of_their_own_whoever_trained_the_same_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = '{"prefect.flow_run_id": "%s", "mlflow.parentRunId": "%s"}'
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", context % ("f-1", "p-1"))
    trained(root)
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", context % ("f-2", "p-1"))
    trained(root)
    assert len(run_keys(root)) == 1, "a flow that is tried again"
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", context % ("f-2", "p-2"))
    trained(root)
    monkeypatch.setenv("DVC_EXP_NAME", "tasty-bole")
    trained(root)
    assert len(set(run_keys(root))) == 3


def test_folders_go_once_their_run_has_ended_and_arrived_or_nobody_goes_on_with_it(
    root: Path,
) -> None:
    for key, status in (("k1", "FINISHED"), ("killed", "KILLED")):
        flush_one(root, waiting_run(root, key, status=status))
    waiting_run(root, "waits")

    def left(age_s: float) -> set[str]:
        past = time.time() - age_s
        for path in runs(root).rglob("*"):
            os.utime(path, (past, past))
        tidy(runs(root) / "other")
        return {path.name for path in runs(root).iterdir() if path.is_dir()}

    assert left(FINISHED_S - 60) == {"k1", "waits", "killed"}
    assert left(FINISHED_S + 60) == {"waits", "killed"}
    assert left(ABANDONED_S + 60) == {"waits"}


def test_f61_a_follower_that_is_killed_costs_no_record(root: Path) -> None:
    with training(root) as tracker:
        log_steps(tracker, STEPS[:5])
        store = Store(root / "mlflow.db")
        wait_until(lambda: len(store.steps("loss/generator")) == 5)
        (follower,) = psutil.Process().children()
        follower.kill()
        log_steps(tracker, STEPS[5:])
    flush(root)
    assert store.steps("loss/generator") == STEPS
    assert [status for _, _, status in store.runs()] == ["FINISHED"]
