"""Notices, to receivers that are well, ill, silent or away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from conftest import on_a_thread
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed

from flows import notices

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")
SECRET = "T0K3N"


@contextmanager
def receiver(
    monkeypatch: pytest.MonkeyPatch, code: int | None = 200
) -> Iterator[list[dict[str, str]]]:
    """Keeps what is posted, behind CGAN_WEBHOOK_URL; without a code it never answers."""
    posted: list[dict[str, str]] = []
    leave = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if code is None:
                leave.wait()
            else:
                self.send_response(code)
                self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with on_a_thread(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        monkeypatch.setenv(notices.URL, f"http://127.0.0.1:{server.server_port}/{SECRET}")
        yield posted
        leave.set()


@flow
def nothing() -> None: ...


def tell(state: State[None], name: str = "nightly 25 Nov 02:00") -> None:
    notices.notify(nothing, FlowRun(id=uuid4(), name=name, flow_id=uuid4()), state)


def test_f76_what_the_morning_must_know_is_posted_as_text_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiver(monkeypatch) as posted:
        for state, headline in (
            (Failed(message="Stage `train`: no"), "*:rotating_light: Failed*"),
            (Crashed(message="Process exited with status code: -9."), "*:boom: Crashed*"),
            (Completed(name="Blocked", message="worse"), "*:no_entry: Blocked by the gate;"),
            (Completed(name="Promoted", message="better"), "*:trophy: New champion*"),
        ):
            tell(state)
            text = posted.pop()["text"]
            assert text.startswith(headline)
            assert "nightly 25 Nov 02:00" in text and str(state.message) in text
        for name in (None, "Unchanged", "Passed"):  # as any other night
            tell(Completed(name=name))
        assert posted == []
        tell(Failed(message="<!channel> & <script>"), name="<http://x|y>")
    assert "<" not in posted[0]["text"].split("\n<http")[0]
    assert "&lt;!channel&gt; &amp; &lt;script&gt;" in posted[0]["text"]


@pytest.mark.parametrize("ill", ["500", "hangs", "away", "nonsense"])
def test_a_receiver_that_is_ill_costs_a_warning_without_the_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ill: str
) -> None:
    monkeypatch.setattr(notices, "PATIENCE_S", 1.0)
    caplog.set_level("DEBUG")
    monkeypatch.delenv(notices.URL, raising=False)
    tell(Failed(message="no"))
    assert notices.URL not in caplog.text, "without an address nothing is sent"
    started = time.monotonic()
    if ill in ("500", "hangs"):
        with receiver(monkeypatch, 500 if ill == "500" else None):
            tell(Failed(message="no"))
    else:
        address = f"http://127.0.0.1:9/{SECRET}" if ill == "away" else f"file:///{SECRET}"
        monkeypatch.setenv(notices.URL, address)
        tell(Failed(message="no"))
    assert time.monotonic() - started < 4
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert notices.URL in warning.getMessage()
    assert SECRET not in caplog.text
