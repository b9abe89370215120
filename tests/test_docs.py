"""The docs show all pictures, the text agrees with them, and the notebook shows what it shows today."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run
from PIL import Image
from synthetic import a_model

from cgan import Generator
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


GENERATORS = [  # kind, classes, channels, height, width, width of the layers, latents
    *[("deconv", 3, 3, 10, 14, 4, 6), ("upsample", 12, 1, 20, 9, 4, 5)],
    *[("embed", 3, 1, 8, 8, 4, 2), ("demo", 10, 1, 28, 28, 8, 100)],
]


@pytest.mark.filterwarnings("ignore")  # torch's, of its own calls
@pytest.mark.parametrize("architecture", GENERATORS, ids=[each[0] for each in GENERATORS])
def test_the_lines_that_write_onnx_draw_the_same_pixels_in_batches_of_any_size(
    architecture: tuple[str, int, int, int, int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        pytest.skip("the lines are for torch 2.9 or newer, as the docs say")
    import onnxruntime

    (tmp_path / "models").mkdir()
    path = a_model(tmp_path / "models/generator.safetensors", *architecture)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/service.md").read_text().partition("## Without Python")[2]
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    session = onnxruntime.InferenceSession("generator.onnx", providers=["CPUExecutionProvider"])
    network = Generator.load(path).network
    for count in (1, 2, 1000):
        latents = torch.randn(count, network.architecture.latent_dim)
        labels = torch.randint(network.classes, (count,))
        inputs = {"latents": latents.numpy(), "labels": labels.numpy()}
        with torch.no_grad():
            expected = network(latents, labels).numpy()
        (images,) = session.run(["images"], inputs)
        assert images.shape == expected.shape and np.abs(images - expected).max() <= 1e-4
