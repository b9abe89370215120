"""The page of a run in a browser: from opening to the first digit, from typing to the picture."""

import shutil
import statistics
import tempfile
from pathlib import Path

from cgan.drawing.generator import Generator
from cgan.page.assemble import play_page

from .evaluation_set import fresh_generator
from .scale import Scale
from .tables import Check, Result, Table

PROMISES = (
    ("opening → the first digits", "first_s", "s", 1),
    ("typing → ten digits", "typing_ms", "ms", 50),
)
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


def measure(scale: Scale) -> Result:
    """The default preset's network; speed does not depend on what it has learnt."""
    from playwright.sync_api import sync_playwright

    table = Table("The page in a browser", ["what", "median", "range", "promised"])
    chromium = shutil.which("chromium")
    if not chromium:
        table.note = "Not measured: no chromium is on the PATH."
        return Result([table])
    generator = Generator(fresh_generator("default").eval(), {"digest": ""})
    html = play_page(generator, "", "a benchmark")
    found: dict[str, list[float]] = {key: [] for _, key, _, _ in PROMISES}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        for number in range(2 * scale.rounds):
            path = Path(folder) / f"{number}.html"
            path.write_text(html, encoding="utf-8")
            page.goto(path.as_uri())
            page.wait_for_function(IS_DRAWN)
            found["first_s"].append(page.evaluate("performance.now()") / 1000)
            for text in TEXTS:
                page.evaluate(TYPE % text)
                found["typing_ms"].append(page.wait_for_function("globalThis.took").json_value())
        browser.close()
    table.note = (
        f"Headless Chromium without a GPU, the page from disk ({len(html) / 1e6:.2f} MB), preset `default`, "
        f"{len(found['first_s'])} openings. Opening: from navigation to the first frame with digits."
    )
    checks = []
    for what, key, unit, most in PROMISES:
        middle = statistics.median(found[key])
        low = min(found[key])
        high = max(found[key])
        table.add(what, f"{middle:.3g} {unit}", f"{low:.3g}–{high:.3g}", f"{most} {unit}")
        checks.append(Check(f"{what}, in {most} {unit}", f"{middle:.3g} {unit}", middle <= most))
    return Result([table], checks, {**found, "bytes": len(html)})
