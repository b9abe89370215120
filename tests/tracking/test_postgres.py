"""Runs in PostgreSQL: a server of our own, with a password, in a temporary folder and on loopback."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import free_port
from tracked import STEPS, log_model, log_steps, training
from tracked import root as root

from cgan.files import read_json, sha256_of
from cgan.pipeline.registry.client import generator_file, open_registry
from cgan.pipeline.tracking.run import open_run
from cgan.project import TRAINING

pytestmark = pytest.mark.slow
PASSWORD = f"p@ss/w:{uuid.uuid4().hex}"
# Debian has `initdb` off the PATH, in a folder for each version.
FOUND = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")]
PROGRAMS = next((Path(found).resolve().parent for found in reversed(FOUND) if found), None)


def program(folder: Path, name: str, *arguments: str) -> str:
    """What a program of PostgreSQL's says. They refuse root, in whose place `nobody` runs them."""
    assert PROGRAMS
    nobody: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with (folder / "said").open("w+") as said:  # a pipe would wait for the server's end
        done = subprocess.run(
            [str(PROGRAMS / name), *arguments],
            cwd=folder,
            env={**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            **(nobody if os.getuid() == 0 else {}),
        )
        said.seek(0)
        words = said.read()
    assert done.returncode == 0, words
    return words


@pytest.fixture
def postgres() -> Iterator[tuple[int, Callable[..., str]]]:
    """The server's port, and its clients; it has an empty database `runs`."""
    if PROGRAMS is None:
        pytest.skip("needs PostgreSQL's server (Debian's package `postgresql`)")
    pytest.importorskip("psycopg2", reason="needs the extra `postgres`")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cgan-postgres-") as name:  # pytest's is root's alone
        folder = Path(name)
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        options = "-N -E UTF8 --auth=scram-sha-256 --pwfile=password"
        program(folder, "initdb", "-D", "data", "-U", "cgan", *options.split())
        options = f"-F -h 127.0.0.1 -p {port} -k ''"
        program(folder, "pg_ctl", "start", "-w", "-D", "data", "-o", options, "-l", "log")
        try:

            def client(name: str, *arguments: str) -> str:
                host = ("-h", "127.0.0.1", "-p", str(port), "-U", "cgan")
                return program(folder, name, *host, *arguments, "runs")

            client("createdb")
            yield port, client
        finally:
            program(folder, "pg_ctl", "stop", "-m", "immediate", "-D", "data")


def test_a_run_is_kept_in_postgresql_with_its_model(
    postgres: tuple[int, Callable[..., str]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a project without a store of its own, in a database that is empty at first."""
    port, client = postgres
    (root / "mlflow.db").unlink()
    secret, place = quote(PASSWORD, safe=""), f"127.0.0.1:{port}/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://cgan:{secret}@{place}")
    with training() as live:
        log_steps(live)
    for _ in range(2):
        with open_run(read_json(TRAINING)) as run:
            run.log_metrics(("loss/generator", 1 / step, step, 1) for step in STEPS)
            log_model(run, root)
    steps = "select step from metrics where key = 'loss/generator' order by step"
    assert client("psql", "-At", "-c", steps).split() == [str(step) for step in STEPS]
    (run,) = client("psql", "-At", "-c", "select run_uuid, status from runs").split()
    assert run.endswith("|FINISHED")
    assert len(list((root / "mlartifacts").rglob("images/*.png"))) == 1
    with open_registry("cgan") as registry:
        assert registry.address == f"postgresql+psycopg2://{place}"
        version = registry.register(registry.client.get_run(run.partition("|")[0]), "d")
        registry.promote(version.number, previous=None, why="the first")
    with generator_file("models:/cgan@champion") as path:
        assert sha256_of(path) == sha256_of(root / "generator.safetensors")
    written = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    for each in (PASSWORD, secret):
        assert not any(each.encode() in content for content in written)
        assert each not in client("pg_dump")
