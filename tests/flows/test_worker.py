"""A worker that joins a pool: what it needs is asked for first, and what a killed one left is taken up."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_checkout import clone as clone
from test_checkout import git

from cgan.errors import CganError
from cgan.git import fetch_commit
from flows import worker
from flows.servers import Production


class Server(http.server.BaseHTTPRequestHandler):
    """Prefect's API, as far as it is asked whether it is there."""

    def do_POST(self) -> None:
        self.send_response(200 if self.path.startswith("/api/") else 404)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_machine_that_cannot_join_is_told_all_that_is_missing(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CGAN_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    shutil.rmtree(clone.parent / "origin.git")
    with pytest.raises(CganError) as told:
        worker.require(clone)
    lines = str(told.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        "Prefect",
        "MLflow",
        "DVC remote",
        "git",
    ]
    assert "PREFECT_API_URL is not set" in lines[1]
    assert "MLFLOW_TRACKING_URI is not set" in lines[2]
    assert "dvc remote add" in lines[3]


def test_git_is_asked_with_the_key_of_the_environment_and_asks_nobody(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, log = clone.parent / "ssh", clone.parent / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho no key >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{script} -i the-key")
    git(clone, "remote", "set-url", "origin", "ssh://host/cgan.git")
    with pytest.raises(CganError, match="no key"):
        fetch_commit(clone, "0" * 40)
    (asked,) = [line for line in log.read_text().splitlines() if "upload-pack" in line]
    assert asked.startswith("-i the-key -o BatchMode=yes")


@pytest.mark.parametrize(
    ("prefect", "mlflow", "words"),
    [
        ("http://name:secret@127.0.0.1:9/api", "http://127.0.0.1:9", "Connection refused"),
        ("http://127.0.0.1:9", "postgresql://me:secret@127.0.0.1:9/runs", "Connection refused"),
        ("{server}", "http://127.0.0.1:9", "MLflow: "),  # the address of the pages is meant, too
    ],
)
def test_servers_that_are_away_are_named_at_once_without_a_password(
    clone: Path, server: str, monkeypatch: pytest.MonkeyPatch, prefect: str, mlflow: str, words: str
) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PREFECT_API_URL", prefect.format(server=server))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("CGAN_REMOTE", str(clone.parent))
    began = time.monotonic()
    with pytest.raises(CganError, match=words) as told:
        worker.require(clone)
    assert ("Prefect: " in str(told.value)) is (server not in prefect.format(server=server))
    assert "secret" not in str(told.value) and time.monotonic() - began < 20


def test_a_worker_s_name_says_what_it_takes_and_is_no_other_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.socket, "gethostname", lambda: "gpu-box")
    names = [worker._name(Production(tmp_path / n), ("cpu", "cuda")) for n in ("a", "b", "a")]
    assert all(re.fullmatch(r"gpu-box-[0-9a-f]{4} \(cpu, cuda\)", name) for name in names)
    assert names[0] == names[2] != names[1]


def test_zero_runs_at_once_are_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    assert worker.main(["join", "--runs", "0"]) == 1
    assert "--runs: expected 1 or more, got 0" in capsys.readouterr().err
