"""A page in a real browser: what it asks the network for, what it shows, how wide it is, what it answers.

Debian's chromium, headless, with a fresh profile, spoken to by its own protocol over a websocket (Prefect
brings the library). No name but 127.0.0.1 resolves in it, so that nothing leaves the machine.
"""

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
from conftest import wait_until
from websockets.sync.client import connect
from websockets.sync.connection import Connection

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As root, in a container; and what nobody looks at is drawn all the same.
OPTIONS = """
    --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0
    --no-first-run --disable-background-networking --disable-background-timer-throttling
    --disable-backgrounding-occluded-windows --disable-renderer-backgrounding
"""
NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []  # of its console, and what nobody caught
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self._ask("Page.bringToFront")  # a tab behind another gets no frames

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while (answer := self._receive(120)).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self, patience_s: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=patience_s))
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
        return message

    def look(self, seconds: float) -> None:
        """Let the page live for so long."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := deadline - time.monotonic()) > 0:
                self._receive(left)

    def start(self, address: str) -> None:
        """Go there, and don't wait."""
        self._ask("Page.navigate", url=address)

    def open(self, address: str) -> None:
        """Go there, and wait until the page is whole."""
        self.start(address)
        self.look(0.3)
        self.until("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        return found["result"].get("value")

    def until(self, code: str) -> Any:
        """The value of an expression, once it is true."""
        deadline = time.monotonic() + 120
        while not (found := self.run(code)):
            assert time.monotonic() < deadline, f"never true: {code}\n{self.errors}"
            self.look(0.02)
        return found

    # -- A person's hands ----------------------------------------------------------------------------

    def resize(self, width: int, height: int, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefer_scheme(self, scheme: str) -> None:
        """What a visitor's system asks of pages: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", features=features)

    def click(self, selector: str) -> None:
        self.drag(selector, (0.5, 0.5))

    def drag(self, selector: str, *path: tuple[float, float]) -> None:
        """Press inside an element, move and let go; places are shares of its width and height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"{element}.getBoundingClientRect().toJSON()")
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in path
        ]
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self._ask("Input.dispatchMouseEvent", type="mousePressed", **points[0], **held)
        for point in points[1:]:
            self._ask("Input.dispatchMouseEvent", type="mouseMoved", **point, **held)
        self._ask("Input.dispatchMouseEvent", type="mouseReleased", **points[-1], **held)

    def elsewhere(self) -> list[str]:
        """What was asked of other hosts than this machine."""
        asked = [(urlsplit(url), url) for url in self.requests]
        return [
            url for at, url in asked if at.scheme.startswith("http") and at.hostname != "127.0.0.1"
        ]


@contextlib.contextmanager
def browsing(
    profile: Path, width: int = 1280, height: int = 800, kind: type[Page] = Page
) -> Iterator[Any]:
    """A page in a browser of its own. Skips the test where there is no browser."""
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    profile.mkdir()
    own = [f"--user-data-dir={profile}", f"--window-size={width},{height}", NO_OTHER_HOST]
    process = subprocess.Popen(
        [found[0], *OPTIONS.split(), *own],
        env={**os.environ, "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = profile / "DevToolsActivePort"
        wait_until(lambda: address.is_file() and "\n" in address.read_text())
        port, path = address.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket:
            yield kind(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
