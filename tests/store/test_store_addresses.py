"""MLFLOW_TRACKING_URI and MLFLOW_BACKEND_STORE_URI: what they lead to, and what may be shown of them."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracked import root as root

from cgan.errors import TrackingError
from cgan.store.address import (
    artifact_root,
    require_files,
    served_store,
    store_uri,
    with_driver,
    without_credentials,
)
from cgan.store.pages import run_page, runs_page
from cgan.store.server import serve_ui, site_of


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # our code sets them; put back afterwards


def test_store_is_in_the_project_unless_the_environment_names_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, meant in (
        ("", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///runs.db", "sqlite:///{root}/runs.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("postgres://me:pw@db/x?ssl=require", "postgresql+psycopg2://me:pw@db/x?sslmode=require"),
        ("postgresql+psycopg://db/runs", "postgresql+psycopg://db/runs"),
        # A server's password goes where MLflow looks for it.
        ("http://me:p%40w@host:5/x", "http://host:5/x"),
        ("HTTPS://me:p@w@host/x", "HTTPS://host/x"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert store_uri(root) == meant.format(root=root)
        if "host" in given:
            assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
            assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@w"


def test_what_is_shown_of_an_address_has_no_password() -> None:
    for uri, shown in (
        ("https://me:secret@host:5/x", "https://host:5/x"),
        ("https://token@host/x", "https://host/x"),
        ("http://me:sec/ret@host:5/x", "http://host:5/x"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("me:secret@host:5000", "host:5000"),
        ("postgresql://me:s@e/c?r:e#t@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        (
            "postgresql:///db?host=/run&password=secret&connect_timeout=3",
            "postgresql:///db?host=/run&connect_timeout=3",
        ),
        ("sqlite:////data/a@b/runs.db", "sqlite:////data/a@b/runs.db"),
        ("/home/me@work/mlruns", "/home/me@work/mlruns"),
        ("", ""),
    ):
        assert without_credentials(uri) == shown


def test_f63_what_is_no_store_is_refused_with_what_to_do_and_without_its_password(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri, words in (
        ("me:secret@host:5000", "'host:5000', which is not supported"),
        ("ours://me:secret@runs", "'ours://runs', which is not supported"),
        ("secret@host/mlruns", "mlflow migrate-filestore --source"),
        ("file:///old/mlruns", "mlflow migrate-filestore --source"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(TrackingError, match=words) as caught:
            store_uri(root)
        assert "secret" not in str(caught.value)


def test_an_address_gets_the_driver_of_whoever_connects() -> None:
    for given in ("postgres://a/b", "postgresql://a/b", "PostgreSQL+asyncpg://a/b"):
        assert with_driver(given) == "postgresql+psycopg2://a/b"
        assert with_driver(given, "asyncpg") == "postgresql+asyncpg://a/b"
    assert with_driver("postgresql://a/b?x=1&sslmode=require", "asyncpg") == (
        "postgresql+asyncpg://a/b?x=1&ssl=require"
    )
    for other in ("postgresql+psycopg://a", "sqlite+aiosqlite:///a", "http://a", ""):
        assert with_driver(other) == other


# MLflow's server


def served(
    root: Path, monkeypatch: pytest.MonkeyPatch, *more: Any
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that `cgan ui` becomes."""
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *all_: became.extend(all_))
    serve_ui(root, 0, "cgan", *more)
    return became[1], became[2]


def test_clients_know_the_server_of_a_shared_store_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///mlflow.db")
    with pytest.raises(TrackingError, match=r"Set MLFLOW_TRACKING_URI to the server's address"):
        store_uri(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri(root) == "http://127.0.0.1:5000"
    assert served_store(root) == f"sqlite:///{root}/mlflow.db"
    command, environment = served(root, monkeypatch)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{root}/mlflow.db"
    assert environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "mlflow-artifacts:/"
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == (root / "mlartifacts").as_uri()
    assert "sqlite" not in " ".join(command)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/runs")
    assert served(root, monkeypatch)[1]["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://bucket/runs"
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "http://me:secret@host")
    with pytest.raises(TrackingError, match=r"is http://host, a server"):
        served_store(root)
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI")
    with pytest.raises(TrackingError, match=r"is http://127.0.0.1:5000, a server"):
        serve_ui(root, 0, "cgan")


def test_the_project_s_own_store_keeps_files_in_a_folder_that_each_writes_to(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, environment = served(root, monkeypatch)
    assert environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == (root / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/runs")
    assert artifact_root("postgresql://db/runs", root) == "s3://bucket/runs"
    assert artifact_root(f"sqlite:///{root}/mlflow.db", root) == (root / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "mlflow-artifacts:/")  # a server's setting
    assert artifact_root("postgresql://db/runs", root) == (root / "mlartifacts").as_uri()


def test_a_server_that_others_can_reach_has_to_be_meant(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match=r"others than this machine .* --allow-remote"):
        served(root, monkeypatch, "0.0.0.0")
    for host in ("203.0.113.9", "nobody.invalid", "a b"):
        with pytest.raises(TrackingError, match=r"give an address of this machine"):
            served(root, monkeypatch, host, True)
    served(root, monkeypatch, "127.0.0.2")
    command, environment = served(root, monkeypatch, "0.0.0.0", True)
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert f"{socket.gethostname()}:0" in environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    origins = environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert f"http://{socket.gethostname()}:0" in origins and "*" not in "".join(origins)
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in served(root, monkeypatch)[1]


def test_addresses_lead_to_where_a_server_listens_and_to_the_view_for_trainings() -> None:
    assert site_of("10.0.0.1", 5) == "http://10.0.0.1:5"
    assert site_of("0.0.0.0", 5) == site_of("::", 5) == "http://127.0.0.1:5"
    assert site_of("fd00::1", 5) == "http://[fd00::1]:5"
    training = "workflowType=machine_learning"
    runs = "http://mlflow.example/#/experiments/3/runs"
    assert run_page("http://mlflow.example/", "3", "ab") == f"{runs}/ab?{training}"
    assert f"http://mlflow.example{runs_page('3')}" == f"{runs}?{training}"


# Files of runs


def test_files_that_would_not_arrive_are_refused() -> None:
    for uri, location, words in (
        ("postgresql://db/runs", "mlflow-artifacts:/1", "set MLFLOW_TRACKING_URI to its address"),
        ("http://203.0.113.9:5000", "file:///nowhere/mlartifacts", "a folder of the server's"),
        ("http://203.0.113.9:5000", "file:///tmp/1", ""),  # a shared disk
        ("http://203.0.113.9:5000", "mlflow-artifacts:/1", ""),
        ("http://203.0.113.9:5000", "s3://bucket/1", ""),
        ("postgresql://db/runs", "file:///nowhere/mlartifacts", ""),
    ):
        experiment: Any = SimpleNamespace(name="cgan", artifact_location=location)
        with pytest.raises(TrackingError, match=words) if words else contextlib.nullcontext():
            require_files(uri, experiment)
