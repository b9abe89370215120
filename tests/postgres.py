"""A PostgreSQL server of our own, with a password, in a temporary folder and on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import free_port

USER, PASSWORD = "cgan", f"p@ss/w:{uuid.uuid4().hex}"


# Debian has `initdb` off the PATH, in a folder for each version.
FOUND = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")]
PROGRAMS = next((Path(found).resolve().parent for found in reversed(FOUND) if found), None)


@dataclass(frozen=True)
class Postgres:
    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> str:
        """A program of PostgreSQL's. They refuse root, in whose place `nobody` runs them."""
        assert PROGRAMS
        done = subprocess.run(
            [str(PROGRAMS / program), *arguments],
            cwd=self.folder,
            env={**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=(log := (self.folder / "said").open("w+")),  # a pipe would wait for the server's end
            stderr=log,
            check=False,
            **({"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}),
        )  # fmt: skip
        with log:
            log.seek(0)
            said = log.read()
        assert done.returncode == 0, said
        return said

    def client(self, program: str, *arguments: str) -> str:
        return self.run(program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, *arguments)

    def start(self) -> None:
        options = f"-F -h 127.0.0.1 -p {self.port} -k ''"
        self.run("pg_ctl", "start", "-w", "-D", "data", "-o", options, "-l", "log")

    def stop(self) -> None:
        """At once, as in an accident."""
        self.run("pg_ctl", "stop", "-m", "immediate", "-D", "data")

    def create(self, *options: str) -> str:
        """The name of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.client("createdb", *options, name)
        return name

    def uri(self, database: str, password: str = PASSWORD) -> str:
        secret = quote(password, safe="")
        return f"postgresql://{USER}:{secret}@127.0.0.1:{self.port}/{database}"

    def rows(self, database: str, query: str) -> list[list[str]]:
        said = self.client("psql", "-At", "-F", "\t", "-c", query, database)
        return [line.split("\t") for line in said.splitlines()]

    def dump(self, database: str) -> str:
        return self.client("pg_dump", database)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if PROGRAMS is None:
        pytest.skip("needs PostgreSQL's server (Debian's package `postgresql`)")
    pytest.importorskip("psycopg2", reason="needs the extra `postgres`")
    folder = Path(tempfile.mkdtemp(prefix="cgan-postgres-"))  # not pytest's, which is root's alone
    server = Postgres(folder, free_port())
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        options = "-N -E UTF8 --auth=scram-sha-256 --pwfile=password"
        server.run("initdb", "-D", "data", "-U", USER, *options.split())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
