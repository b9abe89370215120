"""What MLFLOW_TRACKING_URI leads to, what may be shown of it, and where files lie."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import Store, environment, free_port

from cgan.base.errors import CganError
from cgan.base.hosts import without_credentials
from cgan.pipeline.tracking.store import (
    artifact_root,
    experiment_id,
    open_store,
    reason_of,
    serve_pages,
    store_uri,
)


def test_store_and_files_are_in_the_project_or_where_you_say(
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


def test_an_experiment_keeps_its_files_in_the_project(root: Path) -> None:
    client = open_store(store_uri(root))
    experiment = client.get_experiment(experiment_id(client, "cgan"))
    assert experiment.artifact_location == (root / "mlartifacts").as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment_id(client, "cgan") == experiment.experiment_id
    server = Mock(tracking_uri="http://host", **{"get_experiment_by_name.return_value": None})
    experiment_id(server, "cgan")
    assert server.create_experiment.call_args.args == ("cgan", None), "its files are the server's"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5/x", "https://host:5/x"),
        ("https://token@host/x", "https://host/x"),
        ("http://me:sec/ret@host:5/x", "http://host:5/x"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("me:secret@host:5000", "host:5000"),
        ("postgresql://me:s@e/c?r:e#t@host:5432/db", "postgresql://…"),
        ("postgresql:///db?host=/run&password=secret", "postgresql:///db"),
        ("postgresql:///db?host=/run&password=se@cret", "postgresql://…"),
        ("sqlite:////data/a@b/runs.db", "sqlite:////data/a@b/runs.db"),
    ],
)
def test_what_is_shown_of_an_address_has_no_password(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("refused\nat line 7", "refused"),
        ("", "RuntimeError"),
        ("at http://me:secret@host", "at http://host"),
    ],
)
def test_a_reason_is_the_first_line_without_its_password(said: str, reason: str) -> None:
    assert reason_of(RuntimeError(said)) == reason


def test_of_a_server_no_second_one_is_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    with pytest.raises(CganError, match=r"is http://host, a server"):
        serve_pages(root, free_port())


def test_a_store_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would refuse half-made tables for ever."""
    path = tmp_path / "mlflow.db"

    def half_made(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_text("half")
        raise MemoryError

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("mlflow.MlflowClient", half_made)
        open_store(f"sqlite:///{path}")
    assert not path.exists()


FIRST = """
from cgan.pipeline.tracking.run import open_run
import sys
with open_run({"run_key": sys.argv[1], "run_name": "a", "experiment": "cgan", "began_ms": 1}) as run:
    run.log_metrics([("loss/generator", 1.0, 5, 1)])
"""


@pytest.mark.slow
def test_first_contacts_at_once_make_one_store_and_a_run_each(root: Path) -> None:
    (root / "mlflow.db").unlink()
    command = [sys.executable, "-c", FIRST]
    for process in [subprocess.Popen([*command, key], env=environment()) for key in "aab"]:
        assert process.wait(timeout=240) == 0
    store = Store(root / "mlflow.db")
    assert len(store.runs()) == 2
    assert store.rows("select name from experiments where name = 'cgan'") == [("cgan",)]
