"""`python -m flows.sweep`, as far as it gets where something is missing: one message, and what to do."""

from __future__ import annotations

import http.server
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT
from mlflow.exceptions import MlflowException
from prefect.settings import PREFECT_API_URL, temporary_settings

from cgan.errors import CganError
from flows import pipeline
from flows.servers import ask_prefect
from flows.sweep import __main__ as command
from flows.sweep import pages, pool
from flows.sweep.pool import Pool

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's
]


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
        (200, b"<!doctype html>", "cannot be used (JSONDecodeError: "),
        (401, b'{"exception_message": "Unauthorized"}', "cannot be used (401 Unauthorized)"),
    ],
)
def test_a_server_that_is_not_prefect_s_or_lets_nobody_in_is_one_message(
    server: str, status: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "body", body)
    for ask in (lambda: Pool("train"), pipeline._find_server):
        with pytest.raises(CganError) as told:
            ask()
        assert words in str(told.value) and "unset PREFECT_API_URL" in str(told.value)
        assert "secret" not in str(told.value)


def test_the_worker_and_production_pass_its_answer_on(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CganError, match="with 200: <!doctype"):
        ask_prefect(server, "GET", "/admin/version")
    monkeypatch.setattr(Answer, "status", 401)
    with pytest.raises(CganError, match="with 401: ") as told:
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


def answering(answers: Iterable[Exception | str]) -> Callable[[], str]:
    left = iter(answers)

    def call() -> str:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def test_a_server_that_stays_away_ends_the_sweep_in_words_and_one_that_comes_back_does_not(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pages, pool):
        monkeypatch.setattr(module, "PATIENCE_S", 0.1)
        monkeypatch.setattr(module.time, "sleep", lambda _: None)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    store = pages.Pages(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    for ask, error, words in (
        (store.ask, MlflowException("gone"), "MLflow at sqlite:.* the same command again"),
        (
            Pool._patiently,
            httpx.ConnectError("gone"),
            "Prefect server does not answer .*ConnectError",
        ),
    ):
        assert ask(answering([error, error, "here"])) == "here"
        with pytest.raises(CganError, match=words):
            ask(answering(itertools.repeat(error)))
