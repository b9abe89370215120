"""`python -m flows.sweep`, as far as it gets where something is missing: one message, and what to do."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT
from prefect.settings import PREFECT_API_URL, temporary_settings

from cgan.errors import CganError
from flows import pipeline
from flows.servers import ask_prefect
from flows.sweep import __main__ as command
from flows.sweep.pool import Pool


class Answer(http.server.BaseHTTPRequestHandler):
    """The same to every question."""

    status = 200
    body = b"<!doctype html>"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    url = f"http://name:secret@127.0.0.1:{running.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        yield url
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<!doctype html>", "is not Prefect's API. PREFECT_API_URL ends in /api"),
        (404, b'{"detail": "Not Found"}', "is not Prefect's API. PREFECT_API_URL ends in /api"),
        (401, b'{"exception_message": "Unauthorized"}', "Set PREFECT_API_AUTH_STRING to what"),
        (500, b"oops", "answers with an error: 500 oops."),
    ],
)
def test_a_server_that_is_not_prefect_s_or_lets_nobody_in_is_told_in_words(
    server: str, status: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "body", body)
    for ask in (lambda: Pool("train"), pipeline._find_server):
        with pytest.raises(CganError) as told:
            ask()
        assert words in str(told.value) and "unset PREFECT_API_URL" in str(told.value)
        assert "secret" not in str(told.value)


def test_the_worker_and_production_tell_it_by_the_same_words(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CganError, match="is not Prefect's API"):
        ask_prefect(server, "GET", "/admin/version")
    monkeypatch.setattr(Answer, "status", 401)
    with pytest.raises(CganError, match="PREFECT_API_AUTH_STRING") as told:
        ask_prefect(server, "GET", "/admin/version")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("option", ["--trials", "--parallel"])
def test_none_at_all_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main([option, "0"]) == 1
    assert capsys.readouterr().err == f"Error: {option}: expected 1 or more, got 0.\n"


def test_without_optuna_the_extra_is_named() -> None:
    program = (
        "import importlib.util, runpy\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'optuna' else find(name, *rest)\n"
        "runpy.run_module('flows.sweep', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a sweep needs the extra `sweep`")
    assert "pip install -e '.[pipeline,sweep]'" in done.stderr and "Traceback" not in done.stderr
