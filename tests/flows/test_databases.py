"""Which databases `make up` takes; once with real servers on a real PostgreSQL."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, free_port, wait_until
from postgres import PASSWORD, Postgres
from postgres import postgres as postgres
from test_production import project as project
from test_production import runs_of
from toy_project import git

from cgan.errors import CganError
from cgan.processes import STATE, running
from flows import production as services
from flows.databases import require_database, with_driver
from flows.production import databases_of
from flows.servers import Production, Program

MLFLOW, PREFECT = "MLFLOW_BACKEND_STORE_URI", "PREFECT_SERVER_DATABASE_CONNECTION_URL"
TRACKING = "MLFLOW_TRACKING_URI"
DATABASE = "postgresql+psycopg2://db/runs"
# What SQLAlchemy and the drivers say of MLflow and of each other, and leave open.
quiet = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def test_what_mlflow_s_server_serves_and_what_clients_are_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "require_database", lambda *_: None)
    own = f"sqlite:///{project}/mlflow.db"
    for backend, tracking, served, clients in (
        ("", "", own, own),
        ("postgresql://db/runs", "", DATABASE, ""),
        # Behind a proxy, clients know the server by another address.
        ("postgresql://db/runs", "https://runs/x", DATABASE, "https://runs/x"),
        ("", "https://runs/x", "", "https://runs/x"),
        ("", "postgresql://db/runs", DATABASE, "postgresql://db/runs"),
    ):
        monkeypatch.setenv(MLFLOW, backend)
        monkeypatch.setenv(TRACKING, tracking)
        assert databases_of(project) == (served, "", clients)
    monkeypatch.setenv(PREFECT, "postgres://me:secret@db/flows?sslmode=require")
    prefect = databases_of(project)[1]
    assert prefect == "postgresql+asyncpg://me:secret@db/flows?ssl=require"
    shown = Program.server_at("127.0.0.1", 1, prefect).works_on
    assert shown == "postgresql+asyncpg://me@db/flows?ssl=require"


def test_an_address_gets_the_driver_of_whoever_connects() -> None:
    for given in ("postgres://a/b", "postgresql://a/b", "PostgreSQL+asyncpg://a/b"):
        assert with_driver(given) == "postgresql+psycopg2://a/b"
        assert with_driver(given, "asyncpg") == "postgresql+asyncpg://a/b"
    assert with_driver("postgresql://a/b?x=1&sslmode=require", "asyncpg") == (
        "postgresql+asyncpg://a/b?x=1&ssl=require"
    )
    for other in ("postgresql+psycopg://a", "sqlite+aiosqlite:///a", "http://a", ""):
        assert with_driver(other) == other


def test_a_database_that_cannot_be_used_is_one_message_without_the_password(
    postgres: Postgres,
) -> None:
    """MLflow would try for 100 seconds, Prefect would end in a traceback."""
    name = postgres.create()
    wrong, usable = f"wr@ng{PASSWORD}", postgres.uri(name)
    require_database(with_driver(usable, "asyncpg"))
    away = usable.replace(f":{postgres.port}/", ":9/")
    for uri, words in (
        (postgres.uri(name, wrong), 'password authentication failed for user "cgan"'),
        (postgres.uri("none"), 'database "none" does not exist'),
        (away, "refused|Connect call failed"),
        (usable.replace("127.0.0.1", "nobody.invalid"), "[Nn]ame "),
        (f"{usable}?colour=red", "colour"),
        (usable.replace("%40", "@"), "each @ of a password is written as %40"),
        (usable.replace(f":{postgres.port}/", ":port/"), "invalid literal"),
    ):  # fmt: skip
        began = time.monotonic()
        with pytest.raises(CganError, match=words) as caught:
            require_database(with_driver(uri, "asyncpg"), "THE_VARIABLE")
        assert str(caught.value).startswith("THE_VARIABLE: connecting to postgresql+")
        assert "wr@ng" not in str(caught.value) and PASSWORD[:4] not in str(caught.value)
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("variable", [MLFLOW, PREFECT])
def test_up_without_its_database_starts_nothing_and_says_which_is_away(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
) -> None:
    monkeypatch.setenv(variable, f"postgresql://me:secret@127.0.0.1:{free_port()}/runs")
    assert services.main(["up"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"Error: {variable}: connecting to postgresql+")
    assert "Connect" in told and "secret" not in told
    assert not (Production(project).home / STATE).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@quiet
def test_production_on_postgresql_is_found_again_after_an_end(
    project: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both servers, and a run of the deployment."""
    runs, flows = postgres.create(), postgres.create()
    monkeypatch.setenv(MLFLOW, postgres.uri(runs))
    monkeypatch.setenv(PREFECT, postgres.uri(flows))
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", f"me:{PASSWORD[-16:]}")
    toy = (project / "cgan/cli.py").read_text()
    real = (ROOT / "cgan/cli.py").read_text()
    (project / "cgan/real_cli.py").write_text(real)
    (project / "cgan/cli.py").write_text(
        "import sys\nif sys.argv[1] == 'ui':\n    from cgan.real_cli import main\n    main()\n"
        + toy
    )
    git(project, "commit", "--quiet", "--all", "-m", "pages")
    production = Production(project)
    ports = {name: free_port() for name in services.PORTS}

    try:
        told = services.up(project, ports)
        site = production.url("mlflow")
        assert f"MLflow   {site}  (export {TRACKING}={site})" in told
        services.deploy(project, dict.fromkeys(services.CRONS))
        number = production.deployments()["nightly"]["id"]
        by_hand = production.api("POST", f"/deployments/{number}/create_flow_run", {})["id"]

        wait_until(lambda: runs_of(production, "Promoted"))

        arguments = [str(p.info["cmdline"]) for p in psutil.process_iter(["cmdline"])]
        secrets = (PASSWORD, postgres.uri(runs).split(":")[2].split("@")[0])
        assert not any(secret in line for secret in secrets for line in arguments)
        worker = psutil.Process(running(project)["worker"])
        assert not set(worker.environ()) & {MLFLOW, PREFECT}

        services.down(project)
        assert running(project) == {}
        services.up(project, ports)
        assert [run["id"] for run in runs_of(production, "Promoted")] == [by_hand]
        assert number == production.deployments()["nightly"]["id"]
    finally:
        services.down(project)
    written = [p for p in project.rglob("*") if p.is_file() and not p.is_symlink()]
    for secret in secrets:
        assert [p for p in written if secret.encode() in p.read_bytes()] == []
        assert secret not in postgres.dump(runs) and secret not in postgres.dump(flows)
