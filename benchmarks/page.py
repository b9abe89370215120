"""The page of a run in a browser: from opening to the first digits, from typing to the picture."""

import shutil
import statistics
import tempfile
from pathlib import Path

from cgan.base.report import Report, Table
from cgan.drawing.generator import Generator
from cgan.page.assemble import play_page

from .common import Scale, report

FIRST, TYPING = "opening → the first digits", "typing → ten digits"
MOST_MS = {FIRST: 1000, TYPING: 50}
TEXTS = ("3141592653", "2718281828")  # no digit stands in the same place of both
IS_DRAWN = "document.getElementById('play-picture').getAttribute('aria-busy') === 'false'"
# Both ends of each time are taken in the page; it ends with the frame that shows the picture.
TYPE = """(() => {
  const field = document.getElementById("play-text");
  field.value = "%s";
  globalThis.took = 0;
  const began = performance.now();
  field.dispatchEvent(new Event("input"));
  const look = () => IS_DRAWN ? globalThis.took = performance.now() - began : setTimeout(look);
  look();
})()""".replace("IS_DRAWN", IS_DRAWN)


def measure(scale: Scale) -> Report:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if not chromium:
        return report(Table("The page", (), []), "Not measured: no chromium is on the PATH.")
    html = play_page(Generator.load(), "", "a benchmark")
    found: dict[str, list[float]] = {what: [] for what in MOST_MS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        for number in range(2 * scale.rounds):
            path = Path(folder) / f"{number}.html"
            path.write_text(html, encoding="utf-8")
            page.goto(path.as_uri())
            page.wait_for_function(IS_DRAWN)
            found[FIRST].append(page.evaluate("performance.now()"))
            for text in TEXTS:
                page.evaluate(TYPE % text)
                found[TYPING].append(page.wait_for_function("globalThis.took").json_value())
        browser.close()
    medians = {what: statistics.median(ms) for what, ms in found.items()}
    rows = [
        (what, f"{medians[what]:.3g}", f"{min(ms):.3g} to {max(ms):.3g}", MOST_MS[what])
        for what, ms in found.items()
    ]
    return report(
        Table("The page", ("what", "median ms", "range", "promised"), rows),
        f"Headless Chromium without a GPU, the page from disk ({len(html) / 1e6:.2f} MB), the package's "
        f"digits, {len(found[FIRST])} openings. Opening: from navigation to the first frame with digits.",
        {f"{what} in {MOST_MS[what]} ms": ms <= MOST_MS[what] for what, ms in medians.items()},
        ms=found,
    )
