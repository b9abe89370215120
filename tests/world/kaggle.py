"""A local server in the place of Kaggle: it answers downloads by a script, well or badly."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from world.door import on_a_thread

KEY = "5ecre7-5ecre7-5ecre7"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """One answer to a request for the file; `cut` bytes of the promised body are never sent."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    name: str = "train.csv"


class KaggleServer(ThreadingHTTPServer):
    """`script`: answers in order, the last one for ever. `seen`: (path, Authorization) of requests."""

    daemon_threads = True

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url, self.script = f"http://127.0.0.1:{self.server_port}", script
        self.seen: list[tuple[str, str]] = []
        self.files: dict[str, Answer] = {}

    @property
    def downloads(self) -> int:
        return sum("Download" in path for path, _ in self.seen)


class _Handler(BaseHTTPRequestHandler):
    server: KaggleServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path.endswith("/GetDataset"):
            self._send(Answer(json.dumps({"currentVersionNumber": 3}).encode(), headers=JSON))
            return
        script, files = self.server.script, self.server.files
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer.status == 200:
            # As Kaggle does, send the client to a storage server for the bytes.
            path = f"/storage/{len(files)}/{answer.name}"
            files[path] = answer
            answer = Answer(status=302, headers={"Location": self.server.url + path})
        self._send(answer)

    def do_GET(self) -> None:
        self._send(self.server.files[self.path])

    def _send(self, answer: Answer) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(answer.status)
            for header in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) - answer.cut])

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., KaggleServer]]:
    """Start a server in Kaggle's place with a script of answers; credentials are set, waits short."""
    env = pytest.importorskip("kagglesdk.kaggle_env", reason="needs the extra `kaggle`")
    pytest.importorskip("kagglehub")
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    known = {"HOME": str(tmp_path), "KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("cgan.data.kaggle.RETRY_DELAYS_S", (0.01, 0.01))
    # Kaggle's library looks at the source of every caller to name itself: half a second a request.
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    with contextlib.ExitStack() as running:

        def start(*script: Answer) -> KaggleServer:
            server: KaggleServer = running.enter_context(on_a_thread(KaggleServer(list(script))))
            monkeypatch.setitem(env._env_to_endpoint, env.KaggleEnv.PROD, server.url)
            return server

        yield start
