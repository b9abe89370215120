"""A page in a real browser: what it asks the network for, what it shows, how wide it is.

Debian's chromium, headless, with a fresh profile, spoken to by its own protocol over a websocket (Prefect
brings the library). No name but 127.0.0.1 resolves in it, so that nothing leaves the machine even when a
page tries.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. Its workers and frames count as its own."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self._attach_to_children()  # of the browser: shared and service workers
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._follow(self._session)
        self._ask("Page.enable")

    def _follow(self, session: str) -> None:
        self._send("Network.enable", session)
        self._attach_to_children(session)
        self._send("Runtime.runIfWaitingForDebugger", session)

    def _attach_to_children(self, session: str | None = None) -> None:
        settings = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send("Target.setAutoAttach", session, **settings)

    def _send(self, method: str, session: str | None = None, **params: Any) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return number

    def _ask(self, method: str, **params: Any) -> Any:
        number = self._send(method, getattr(self, "_session", None), **params)
        while (message := self._receive(60)).get("id") != number:
            pass
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _receive(self, patience_s: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=patience_s))
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])
            case "Target.attachedToTarget":
                self._follow(params["sessionId"])
        return message

    def look(self, seconds: float) -> None:
        """Let the page live for so long."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := deadline - time.monotonic()) > 0:
                self._receive(left)

    def open(self, address: str, words: str = "", patience_s: float = 60) -> None:
        """Go there, and wait until `words` stand on the page."""
        self._ask("Page.navigate", url=address)
        deadline = time.monotonic() + patience_s
        while True:
            self.look(0.3)
            text = self.run("document.body ? document.body.innerText : ''")
            if self.run("document.readyState") == "complete" and words in text:
                return
            assert time.monotonic() < deadline, f"{address}: no {words!r} on the page:\n{text}"

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        return found["result"].get("value")

    def elsewhere(self) -> list[str]:
        """What was asked of other hosts than this machine."""
        network = ("http", "https", "ws", "wss")  # and not data, blob, file, the browser's own
        asked = [(urlsplit(url), url) for url in self.requests]
        return [url for at, url in asked if at.scheme in network and at.hostname != "127.0.0.1"]

    def shoot(self, path: Path, whole: bool = False) -> None:
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextlib.contextmanager
def browsing(profile: Path, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A page in a browser of its own. Skips the test where there is no browser."""
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    profile.mkdir()
    with (profile / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [found[0], *OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"],
            env={**os.environ, "HOME": str(profile)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (address.is_file() and address.read_text().count("\n") == 1):
            said = (profile / "stderr").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        port, path = address.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
