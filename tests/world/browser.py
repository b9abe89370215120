"""A page in a real browser: a chromium that is installed already, driven by Playwright. No name but 127.0.0.1
resolves in it, so that nothing leaves the machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 320, "height": 640}, "device_scale_factor": 2}
PHONE |= {"is_mobile": True, "has_touch": True}
PIXELS = """(canvas) => {
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    return [height, width, Array.from(copy.getImageData(0, 0, width, height).data)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips the test where there is none. Until the module's end no other event loop runs on this thread."""
    found = [path for path in map(shutil.which, CHROMIUMS) if path]
    if not found:
        pytest.skip(f"no browser here: none of {', '.join(CHROMIUMS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options: dict[str, Any] = {"executable_path": found[0], "args": [NO_OTHER_HOST]}
        with playwright.chromium.launch(**options) as browser:
            yield browser


class Visitor:
    """Of a page on which a generator draws, whose elements have these names behind `play-`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []  # of its console, and what nobody caught
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.errors.append(message.text)

    def open(self, address: str) -> None:
        """Also where only the hash is another: it is a new page."""
        self.page.goto("about:blank")
        self.page.goto(address)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(code)

    def until(self, code: str) -> None:
        self.page.wait_for_function(code)

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#play-{name}")

    def idle(self) -> None:
        """Wait until all is drawn."""
        self.page.wait_for_selector("#play-picture[aria-busy=false]")

    def type(self, name: str, value: str) -> None:
        self.part(name).fill(value)
        self.idle()

    def words(self, name: str) -> str:
        return self.part(name).text_content() or ""

    def label(self, name: str = "picture") -> str:
        return self.part(name).get_attribute("aria-label") or ""

    def pixels(self, name: str = "picture") -> Any:
        """int [H, W, 3] of a canvas."""
        height, width, data = self.part(name).evaluate(PIXELS)
        return np.array(data).reshape(height, width, 4)[..., :3]


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Offline. Afterwards: no error in the console, and nothing was asked of a network."""
    with browser.new_context(offline=True, **getattr(request, "param", DESKTOP)) as context:
        context.set_default_timeout(120_000)  # a busy machine's
        visitor = Visitor(context.new_page())
        yield visitor
    assert visitor.errors == []
    assert not [url for url in visitor.requests if url.startswith("http")]


on_a_phone = pytest.mark.parametrize("page", [PHONE], indirect=True, ids=["phone"])
