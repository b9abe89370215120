"""What MLFLOW_TRACKING_URI leads to, what may be shown of it, and where files lie; `cgan ui`."""

import contextlib
import http.server
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import free_port, on_a_thread
from tracked import Store, log_model, log_steps, mlflow_server, training
from tracked import root as root

from cgan.files import sha256_of
from cgan.hosts import without_credentials
from cgan.pipeline.registry.client import generator_file
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.pipeline.tracking.store import (
    artifact_root,
    experiment_id,
    experiment_name,
    open_store,
    reason_of,
    requester_tags,
    store_uri,
)
from cgan.project import TRAINING


def test_store_and_files_are_in_the_project_unless_the_environment_names_other_places(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, meant in (
        ("", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///runs.db", "sqlite:///{root}/runs.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("postgresql://me:pw@db/runs", "postgresql://me:pw@db/runs"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert store_uri(root) == meant.format(root=root)
    for uri in (f"sqlite:///{root}/mlflow.db", "postgresql://db/runs"):
        assert artifact_root(uri, root) == (root / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/runs")
    assert artifact_root("postgresql://db/runs", root) == "s3://bucket/runs"


def test_what_is_shown_of_an_address_has_no_password() -> None:
    for uri, shown in (
        ("https://me:secret@host:5/x", "https://host:5/x"),
        ("https://token@host/x", "https://host/x"),
        ("http://me:sec/ret@host:5/x", "http://host:5/x"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("me:secret@host:5000", "host:5000"),
        ("postgresql://me:s@e/c?r:e#t@host:5432/db", "postgresql://…"),
        ("postgresql:///db?host=/run&password=secret", "postgresql:///db"),
        ("postgresql:///db?host=/run&password=se@cret", "postgresql://…"),
        ("sqlite:////data/a@b/runs.db", "sqlite:////data/a@b/runs.db"),
    ):
        assert without_credentials(uri) == shown


def test_an_experiment_is_named_by_the_environment_first_and_is_one_of_trainings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", " nights ")
    assert experiment_name("cgan") == "nights"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", " ")
    assert experiment_name("cgan") == "cgan"
    client = open_store(store_uri(root))
    experiment = client.get_experiment(experiment_id(client, "cgan"))
    assert experiment.artifact_location == (root / "mlartifacts").as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment_id(client, "cgan") == experiment.experiment_id


def test_who_asked_is_the_user_where_there_is_one_and_the_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": 7}))
    monkeypatch.setattr("getpass.getuser", lambda: "somebody")
    assert requester_tags() == {"prefect.flow_run_id": "7", "mlflow.user": "somebody"}

    def unknown() -> str:
        raise KeyError("uid 1234")

    monkeypatch.setattr("getpass.getuser", unknown)
    for nothing in ("", "no JSON", "[1]", "7"):
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT", nothing)
        assert requester_tags() == {}


def test_the_reason_is_the_first_line_of_what_the_machine_said() -> None:
    wrapped = RuntimeError("Max retries exceeded")
    wrapped.__context__ = ConnectionRefusedError("refused\nat http://me:secret@host")
    assert reason_of(wrapped) == "refused"
    assert reason_of(RuntimeError("")) == "RuntimeError"
    for secret in (
        "http://me:{}@host",
        "password={} host=h",
        "https://h/x?a=1&token={}",
        "MY_API_KEY='{}'",
    ):
        assert "geheim" not in reason_of(RuntimeError(f"at {secret.format('geheim')}, twice"))
    assert reason_of(RuntimeError("at http://me:secret@host")) == "at http://host"
    assert reason_of(RuntimeError("monkey=no (key = 5)")) == "monkey=… (key = 5)"


MIGRATION = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cgan.pipeline.tracking.store import open_store

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


FIRST = """
from cgan.pipeline.tracking.run import open_run
import sys
with open_run({"run_key": sys.argv[1], "run_name": "a", "experiment": "cgan", "began_ms": 1}) as run:
    run.log_metrics([("loss/generator", 1.0, 5, 1)])
"""


@pytest.mark.slow
def test_f62_two_first_contacts_at_once_make_one_store_and_of_a_training_one_run(
    root: Path,
) -> None:
    (root / "mlflow.db").unlink()
    command = [sys.executable, "-c", FIRST]
    all_three = [subprocess.Popen([*command, key], stderr=subprocess.PIPE) for key in "aab"]
    for process in all_three:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()
    store = Store(root / "mlflow.db")
    assert len(store.runs()) == 2
    assert store.rows("select name from experiments where name = 'cgan'") == [("cgan",)]


# ------------------------------------------------------------------------------ MLflow's server


@contextlib.contextmanager
def empty_answers() -> Iterator[str]:
    """A server that answers everything with `{}`, as MLflow answers a search that finds nothing."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    with on_a_thread(http.server.HTTPServer(("127.0.0.1", 0), Empty)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_mlflow_on_this_machine_is_not_asked_through_a_proxy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # nobody answers there
    with empty_answers() as site:
        assert list(open_store(site).search_experiments()) == []


@pytest.mark.slow
def test_runs_of_before_open_and_new_experiments_keep_files_behind_the_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(key: str, experiment: str) -> str:
        with training(key, experiment) as live:
            log_steps(live)
        with open_run(read_training(TRAINING)) as run:
            run.log_image("previews", np.zeros((8, 12), np.uint8), 1, 1)
            log_model(run, root)
            return str(run.run_id)

    runs = [recorded("k1", "former")]
    with mlflow_server(root, free_port()) as site:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", site)
        runs += [recorded("k2", "former"), recorded("k3", "new")]
        client = open_store(site)
        places = [client.get_run(run).info.artifact_uri.partition(":")[0] for run in runs]
        assert places == ["file", "file", "mlflow-artifacts"]
        for run in runs:
            paths = [each.path for each in client.list_artifacts(run, "images")]
            [picture] = [path for path in paths if path.endswith("png")]
            query = urllib.parse.urlencode({"run_uuid": run, "path": picture})
            with urllib.request.urlopen(f"{site}/get-artifact?{query}") as answer:  # as pages do
                assert answer.read().startswith(b"\x89PNG")
            with generator_file(f"runs:/{run}/generator") as path:
                assert sha256_of(path) == sha256_of(root / "generator.safetensors")
