"""Notices, to receivers that are well, ill, silent or away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed

from flows import notices

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")
SECRET = "T0K3N"
Receiver = Callable[..., AbstractContextManager[list[dict[str, str]]]]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """Starts a server that keeps what is posted, behind CGAN_WEBHOOK_URL; without a code it never answers."""

    @contextmanager
    def start(code: int | None = 200) -> Iterator[list[dict[str, str]]]:
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

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            monkeypatch.setenv(notices.URL, f"http://127.0.0.1:{server.server_port}/{SECRET}")
            try:
                yield posted
            finally:
                leave.set()
                server.shutdown()
                thread.join()

    return start


@flow
def nothing() -> None: ...


def run_named(name: str) -> FlowRun:
    return FlowRun(id=uuid4(), name=name, flow_id=uuid4())


def tell(state: State[None], name: str = "nightly 25 Nov 02:00") -> None:
    notices.notify(nothing, run_named(name), state)


@pytest.mark.parametrize(
    ("state", "headline"),
    [
        (Failed(message="Stage `train`: no"), "*:rotating_light: Failed*"),
        (Crashed(message="Process exited with status code: -9."), "*:boom: Crashed*"),
        (Completed(name="Blocked", message="worse"), "*:no_entry: Blocked by the gate;"),
        (Completed(name="Promoted", message="better"), "*:trophy: New champion*"),
    ],
)
def test_what_the_morning_must_know_is_posted_with_run_and_reason(
    receiver: Receiver, state: State[None], headline: str
) -> None:
    with receiver() as posted:
        tell(state)
    (notice,) = posted
    assert notice["text"].startswith(headline)
    assert "nightly 25 Nov 02:00" in notice["text"]
    assert str(state.message) in notice["text"]


def test_a_run_like_any_other_night_s_is_not_posted(receiver: Receiver) -> None:
    with receiver() as posted:
        for name in (None, "Unchanged", "Passed"):
            tell(Completed(name=name))
    assert posted == []


def test_f76_markup_in_a_run_s_words_arrives_as_text(receiver: Receiver) -> None:
    with receiver() as posted:
        tell(Failed(message="<!channel> & <script>"), name="<http://x|y>")
    assert "<" not in posted[0]["text"].split("\n<http")[0]
    assert "&lt;!channel&gt; &amp; &lt;script&gt;" in posted[0]["text"]


@pytest.mark.parametrize("ill", ["500", "hangs", "away", "nonsense"])
def test_a_receiver_that_is_ill_costs_a_warning_without_the_address(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ill: str,
) -> None:
    monkeypatch.setattr(notices, "PATIENCE_S", 1.0)
    caplog.set_level("DEBUG")
    monkeypatch.delenv(notices.URL, raising=False)
    tell(Failed(message="no"))
    assert notices.URL not in caplog.text, "without an address nothing is sent"
    started = time.monotonic()
    if ill in ("500", "hangs"):
        with receiver(500 if ill == "500" else None):
            tell(Failed(message="no"))
    else:
        address = f"http://127.0.0.1:9/{SECRET}" if ill == "away" else f"file:///{SECRET}"
        monkeypatch.setenv(notices.URL, address)
        tell(Failed(message="no"))
    assert time.monotonic() - started < 4
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert notices.URL in warning.getMessage()
    assert SECRET not in caplog.text
