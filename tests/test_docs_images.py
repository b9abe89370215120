"""The docs show all pictures, one command takes them, and the text agrees with them."""

from __future__ import annotations

import re

from conftest import ROOT

from cgan.files import read_json

IMAGES = ROOT / "docs/images"
# By `cgan draw` (CONTRIBUTING.md), by hand, of other data, and what docs/screenshots.py writes.
BY_OTHERS = {
    "grid.png",
    "pipeline.svg",
    "facts.json",
    "hands-alphabets.jpg",
    "photographs-cifar.jpg",
    "photographs-tiles.png",
}
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:docs/)?images/([\w.-]+)\)")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_docs_show_all_pictures_and_one_command_takes_them() -> None:
    shown = {name for page in PAGES for _, name in SHOWN.findall(page.read_text())}
    there = {path.name for path in IMAGES.iterdir()}
    assert shown == there - {"facts.json"}
    source = (ROOT / "docs/screenshots.py").read_text()
    listed = re.search(r"^PICTURES = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    assert listed
    taken = re.findall(r'"([\w-]+)"', listed[1])
    assert sorted(f"{name}.png" for name in taken) == sorted(there - BY_OTHERS)
    assert all(path.stat().st_size <= 300_000 for path in IMAGES.iterdir())


def test_the_text_agrees_with_what_the_pictures_show() -> None:
    facts = read_json(IMAGES / "facts.json")
    readme = (ROOT / "README.md").read_text()
    accuracy, spread = map(float, re.findall(r"\*\*([\d.]+) ± ([\d.]+) %", readme)[0])
    assert abs(100 * facts["sample"]["accuracy"] - accuracy) <= 3 * spread
    assert f"trained in {facts['sample']['training_s']:.0f} s" in readme
    for page in (ROOT / "README.md", ROOT / "docs/production.md"):
        captions = {name: words for words, name in SHOWN.findall(page.read_text())}
        assert facts["production"].lower() in captions["production-run.png"], page
