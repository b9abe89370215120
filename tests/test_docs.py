"""The docs show all pictures, the text agrees with them, and the notebook shows what it shows today."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

from cgan.files import read_json

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
IMAGES = ROOT / "docs/images"
# By `cgan draw` (CONTRIBUTING.md), by hand, of other data, and what docs/screenshots.py writes.
BY_OTHERS = {
    "grid.png",
    "pipeline.svg",
    "facts.json",
    "hands-alphabets.jpg",
    "local-score-32.jpg",
    "local-score-64.jpg",
    "local-score-96.jpg",
    "photographs-cifar.jpg",
    "photographs-clothes.jpg",
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


def pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.slow
def test_the_notebook_runs_and_its_stored_outputs_are_those_of_today(tmp_path: Path) -> None:
    program = [sys.executable, "-W", "error", ROOT / "tools/notebook.py", "--check"]
    today = json.loads(run(*program, cwd=tmp_path))
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK.stat().st_size < 200_000
    cells = notebook["cells"]
    stored = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert len(today) == len(stored) > 5
    for (now,), (then,) in zip(today, stored, strict=True):
        assert now.keys() == then.keys() and now["data"].keys() == then["data"].keys()
        for kind, value in now["data"].items():
            if kind == "text/plain":
                assert value == then["data"][kind]
            else:  # another kind of CPU rounds differently
                ours, theirs = pixels(value), pixels(then["data"][kind])
                assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 1
    assert not list(tmp_path.iterdir())
