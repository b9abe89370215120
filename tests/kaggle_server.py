"""A local server in Kaggle's place: it answers downloads by a script, well or badly."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import on_a_thread


@dataclass(frozen=True)
class Answer:
    """One answer to a request for the file; `cut` bytes of the promised body are never sent."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    silence_s: float = 0
    name: str = "train.csv"


class KaggleServer(ThreadingHTTPServer):
    """`script`: answers in order, the last one for ever. `seen`: (path, Authorization) of requests."""

    daemon_threads = True

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.seen: list[tuple[str, str]] = []
        self.files: dict[str, Answer] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def downloads(self) -> int:
        return sum("Download" in path for path, _ in self.seen)

    def next_answer(self) -> Answer:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class _Handler(BaseHTTPRequestHandler):
    server: KaggleServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path.endswith("/GetDataset"):
            self._send(Answer(json.dumps({"currentVersionNumber": 3}).encode(), headers=_JSON))
            return
        answer = self.server.next_answer()
        if answer.status != 200 or answer.silence_s:
            self._send(answer)
            return
        # As Kaggle does, send the client to a storage server for the bytes.
        path = f"/storage/{len(self.server.files)}/{answer.name}"
        self.server.files[path] = answer
        self._send(Answer(status=302, headers={"Location": self.server.url + path}))

    def do_GET(self) -> None:
        self._send(self.server.files[self.path])

    def _send(self, answer: Answer) -> None:
        time.sleep(answer.silence_s)
        with contextlib.suppress(ConnectionError):
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) - answer.cut])

    def log_message(self, format: str, *args: object) -> None: ...


_JSON = {"Content-Type": "application/json"}


def serving(*script: Answer) -> contextlib.AbstractContextManager[KaggleServer]:
    return on_a_thread(KaggleServer(list(script)))
