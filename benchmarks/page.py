"""The page of a run in a browser: from opening to the first digit, from typing to the picture, a thousand."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from cgan.page.assemble import play_page
from cgan.serving.generator import Generator

from .ground import fresh_generator
from .machine import ROOT
from .scale import Scale
from .tables import Check, Result, Table

FIRST_S, TYPING_MS, THOUSAND_S = 1.0, 50.0, 3.0
TEXTS = ("3141592653", "2718281828")  # no digit stands in the same place of both
DRAWN = "document.getElementById('play-picture').getAttribute('aria-busy') === 'false'"
# Both ends of each time are taken in the page; it ends with the frame that shows the picture.
TYPE = """(() => {
  const field = document.getElementById("play-text");
  field.value = "%s";
  globalThis.took = 0;
  const began = performance.now();
  field.dispatchEvent(new Event("input"));
  const look = () => DRAWN ? globalThis.took = performance.now() - began : setTimeout(look);
  look();
})()""".replace("DRAWN", DRAWN)
THOUSAND = """(() => {
  const done = document.getElementById("play-csv");
  globalThis.took = 0;
  const began = performance.now();
  new MutationObserver(() => {
    if (!done.disabled) globalThis.took = performance.now() - began;
  }).observe(done, { attributes: true });
  document.getElementById("play-draw").click();
})()"""


def measure(scale: Scale) -> Result:
    """The default preset's network; speed does not depend on what it has learnt."""
    sys.path.append(str(ROOT / "tests"))
    from browser import NAMES, browsing

    table = Table("The page in a browser", ["what", "median", "range", "promised"])
    if not any(map(shutil.which, NAMES)):
        table.note = f"Not measured: none of {', '.join(NAMES)} is on the PATH."
        return Result([table])
    html = play_page(_generator())
    found: dict[str, list[float]] = {"first_s": [], "typing_ms": [], "thousand_s": []}
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder) / "profile") as page:
        for number in range(2 * scale.rounds):
            path = Path(folder) / f"{number}.html"
            path.write_text(html, encoding="utf-8")
            page.start(path.as_uri())
            page.until(f"document.readyState === 'complete' && {DRAWN}")
            mark = "performance.getEntriesByName('cgan-first-drawing')[0].startTime"
            found["first_s"].append(page.run(mark) / 1000)
            for text in TEXTS:
                found["typing_ms"].append(_time(page, TYPE % text))
            found["thousand_s"].append(_time(page, THOUSAND) / 1000)
    _fill(table, found, len(html))
    checks = [
        Check("the first digit after opening, in 1 s", *_held(found["first_s"], FIRST_S, "s")),
        Check("ten digits from typing, in 50 ms", *_held(found["typing_ms"], TYPING_MS, "ms")),
        Check("a thousand samples in 3 s", *_held(found["thousand_s"], THOUSAND_S, "s")),
    ]
    return Result([table], checks, {**found, "bytes": len(html)})


def _generator() -> Generator:
    network = fresh_generator("default")
    return Generator(network.eval(), {"digest": ""})


def _time(page: Any, code: str) -> float:
    page.run(code)
    return float(page.until("globalThis.took"))


def _fill(table: Table, found: dict[str, list[float]], size: int) -> None:
    for what, key, unit, most in (
        ("opening → the first digits", "first_s", "s", FIRST_S),
        ("typing → ten digits", "typing_ms", "ms", TYPING_MS),
        ("1,000 samples, painted", "thousand_s", "s", THOUSAND_S),
    ):
        digits = 2 if unit == "s" else 0
        low, middle, high = min(found[key]), statistics.median(found[key]), max(found[key])
        table.add(what, f"{middle:.{digits}f} {unit}", f"{low:.{digits}f}–{high:.{digits}f}",
                  f"{most:g} {unit}")  # fmt: skip
    table.note = (
        f"Headless Chromium without a GPU, the page from disk ({size / 1e6:.2f} MB), preset `default`, "
        f"{len(found['first_s'])} openings. Opening: from the start of the navigation to the end of the "
        "script. On one thread, in slices of 24 ms."
    )


def _held(found: list[float], most: float, unit: str) -> tuple[str, bool]:
    middle = statistics.median(found)
    return f"{middle:.3g} {unit}", middle <= most
