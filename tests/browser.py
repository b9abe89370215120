"""A page in a real browser: what it asks the network for, what it shows, how wide it is, what it answers.

Debian's chromium, headless, with a fresh profile, spoken to by its own protocol over a websocket (Prefect
brings the library). No name but 127.0.0.1 resolves in it, so that nothing leaves the machine even when a
page tries.
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
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As root, in a container, with no traffic of its own; and what nobody looks at is drawn all the same.
OPTIONS = """
    --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0
    --no-first-run --no-default-browser-check --disable-component-update --disable-background-networking
    --disable-background-timer-throttling --disable-backgrounding-occluded-windows
    --disable-renderer-backgrounding
"""
NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38}
KEYS |= {"ArrowRight": 39, "ArrowDown": 40}


class Page:
    """One tab. Its workers and frames count as its own."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []  # of its console, and what nobody caught
        self._attach_to_children()  # of the browser: shared and service workers
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._follow(self._session)
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self._ask("Page.bringToFront")  # a tab behind another gets no frames

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
        while (message := self._receive(120)).get("id") != number:
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
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str([one.get("value") for one in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Target.attachedToTarget":
                self._follow(params["sessionId"])
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

    def open(self, address: str, words: str = "", patience_s: float = 120) -> None:
        """Go there, and wait until `words` stand on the page."""
        self.start(address)
        self.look(0.3)
        there = f"document.body?.innerText.includes({json.dumps(words)})"
        self.until(f"document.readyState === 'complete' && {there}", patience_s)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        return found["result"].get("value")

    def until(self, code: str, patience_s: float = 120) -> Any:
        """The value of an expression, once it is true."""
        deadline = time.monotonic() + patience_s
        while not (found := self.run(code)):
            text = self.run("document.body?.innerText")
            assert time.monotonic() < deadline, f"never true: {code}\n{self.errors}\n{text}"
            self.look(0.02)
        return found

    # -- A person's hands ----------------------------------------------------------------------------

    def resize(self, width: int, height: int, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefer(self, **features: str) -> None:
        """What a visitor's system asks of pages: `prefer(color_scheme="dark")`."""
        named = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self._ask("Emulation.setEmulatedMedia", features=named)

    def write(self, text: str) -> None:
        """Character by character, into what has the focus."""
        for character in text:
            self._ask("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=character)

    def press(self, key: str) -> None:
        facts = {"windowsVirtualKeyCode": KEYS[key], "code": key}
        facts["key"] = " " if key == "Space" else key
        typed = {"Enter": "\r", "Space": " "}.get(key)
        down = {"type": "keyDown", "text": typed} if typed else {"type": "rawKeyDown"}
        self._ask("Input.dispatchKeyEvent", **down, **facts)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **facts)

    def box(self, selector: str) -> dict[str, float]:
        """Of an element, which is scrolled into sight."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        box: dict[str, float] = self.run(f"{element}.getBoundingClientRect().toJSON()")
        return box

    def click(self, selector: str) -> None:
        self.drag(selector, (0.5, 0.5))

    def drag(self, selector: str, *path: tuple[float, float]) -> None:
        """Press inside an element, move and let go; places are shares of its width and height."""
        box = self.box(selector)
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in path
        ]
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self._ask("Input.dispatchMouseEvent", type="mousePressed", **points[0], **held)
        for point in points[1:]:
            self._ask("Input.dispatchMouseEvent", type="mouseMoved", **point, **held)
        self._ask("Input.dispatchMouseEvent", type="mouseReleased", **points[-1], **held)

    def downloads_to(self, folder: Path) -> None:
        self._send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def downloaded(self, path: Path) -> Path:
        """Wait until a download is whole: until then it is empty, or a file beside it has the bytes."""
        at = path.parent
        wait_until(lambda: path.exists() and path.stat().st_size and not [*at.glob("*.crdownload")])
        return path

    def elsewhere(self) -> list[str]:
        """What was asked of other hosts than this machine."""
        network = ("http", "https", "ws", "wss")  # and not data, blob, file, the browser's own
        asked = [(urlsplit(url), url) for url in self.requests]
        return [url for at, url in asked if at.scheme in network and at.hostname != "127.0.0.1"]


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
    with (profile / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [found[0], *OPTIONS.split(), *own],
            env={**os.environ, "HOME": str(profile)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = profile / "DevToolsActivePort"
        started = lambda: address.is_file() and "\n" in address.read_text()  # noqa: E731
        wait_until(lambda: started() or process.poll() is not None)
        assert process.poll() is None, (profile / "stderr").read_text()
        port, path = address.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket:
            yield kind(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
