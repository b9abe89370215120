"""A worker that joins a pool: what it needs is asked for first, and what a killed one left is taken up."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import __version__ as prefect_version
from test_checkout import clone as clone
from test_checkout import git

from cgan.errors import CganError
from cgan.git import fetch_commit
from flows import worker
from flows.servers import Production


class Server(http.server.BaseHTTPRequestHandler):
    """Prefect's API, as far as it is asked whether it is there."""

    version = prefect_version
    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer or json.dumps(self.version).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/api"
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
    assert "no key" in str(worker._fault_of_origin(clone))
    with pytest.raises(CganError, match="no key"):
        fetch_commit(clone, "0" * 40)
    asked = [line for line in log.read_text().splitlines() if "upload-pack" in line]
    assert len(asked) == 2
    assert all(line.startswith("-i the-key -o BatchMode=yes") for line in asked)


def test_servers_that_are_away_or_of_another_kind_are_told_apart(
    clone: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert worker._fault_of_prefect() is None
    monkeypatch.setenv("PREFECT_API_URL", server.removesuffix("/api"))
    assert worker._fault_of_prefect() is None, "the address of the page is meant, too"
    monkeypatch.setattr(Server, "version", "2.20.0")
    assert "the server is Prefect 2.20.0" in str(worker._fault_of_prefect())
    monkeypatch.setenv("PREFECT_API_URL", "http://name:secret@127.0.0.1:9/api")
    with pytest.raises(CganError, match=r"127\.0\.0\.1:9/api gives no answer") as away:
        worker._fault_of_prefect()
    assert "secret" not in str(away.value)
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setattr(Server, "answer", b"<!doctype html>")
    with pytest.raises(CganError, match="with 200: <!doctype"):
        worker._fault_of_prefect()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 gives no answer" in str(worker._fault_of_mlflow(clone))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1:9/runs")
    began = time.monotonic()
    with pytest.raises(CganError, match=r"Connection refused") as away:
        worker._fault_of_mlflow(clone)
    assert "secret" not in str(away.value) and time.monotonic() - began < 10


def test_prefect_cloud_is_asked_at_the_address_of_the_workspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    url = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/")
    monkeypatch.setattr(worker, "ask_prefect", lambda *question: asked.append(question[:3]))
    assert worker._fault_of_prefect() is None
    assert asked == [(url, "POST", "/work_pools/filter")]


def test_a_worker_s_name_says_what_it_takes_and_is_no_other_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.socket, "gethostname", lambda: "gpu-box")
    names = [worker._name(Production(tmp_path / n), ("cpu", "cuda")) for n in ("a", "b", "a")]
    assert all(re.fullmatch(r"gpu-box-[0-9a-f]{4} \(cpu, cuda\)", name) for name in names)
    assert names[0] == names[2] != names[1]


def test_a_worker_has_started_when_it_says_so_and_not_when_a_killed_one_seems_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = ["12:00", "12:00", "12:00", "12:01"]

    def ask(*_: Any) -> Any:
        return [{"name": "w", "last_heartbeat_time": times.pop(0)}]

    def wait(_: Any, name: str, answers: Callable[[], bool]) -> None:
        while not answers():
            pass

    monkeypatch.setattr(worker, "ask_prefect", ask)
    monkeypatch.setattr(Production, "start", wait)
    worker.start(Production(tmp_path), "w", "http://host/api")
    assert times == []


def test_zero_runs_at_once_are_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    assert worker.main(["join", "--runs", "0"]) == 1
    assert "--runs: expected 1 or more, got 0" in capsys.readouterr().err
