"""The generator that comes with the package, and drawing where nothing but its six packages is installed."""

import base64
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image

from cgan.base.errors import CganError
from cgan.drawing.generator import BUNDLED, Generator
from cgan.models.model_file import load_generator

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRA = PROJECT["optional-dependencies"]["pipeline"]
PIPELINE = {re.split(r"[^\w.-]", line)[0] for line in EXTRA}

BLOCKER = f"""
import sys
absent = {sorted({name.partition(".")[0] for name in PIPELINE} - {"pydantic"})}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""
"""In an environment with the base packages alone. pydantic is none of them, but Typer may bring it."""


def test_it_is_small_and_whole_and_says_how_good_it_is() -> None:
    assert BUNDLED.stat().st_size <= 600_000
    _, facts = load_generator(BUNDLED)  # checks the digest and each weight
    assert facts["recipe"] == "best" and "MNIST" in facts["data"]
    assert facts["quality"]["context"]["generator_digest"] == facts["digest"]
    assert facts["quality"]["metrics"]["conditional_accuracy"]["value"] > 0.99


def test_a_generator_is_saved_and_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    generator, path = Generator.load(), tmp_path / "new" / "digits.safetensors"
    generator.save(path)
    assert path.read_bytes() == BUNDLED.read_bytes()
    generator.facts["class_names"] = ["<zero>", *"123456789"]
    shown = generator._repr_html_()
    assert "10 classes, 28×28 pixels" in shown and 'alt="&lt;zero&gt;, 1, 2' in shown
    png = io.BytesIO(base64.b64decode(shown.split("base64,")[1].split('"')[0]))
    assert np.array_equal(np.asarray(Image.open(png)), np.asarray(generator.picture(range(10))))


def test_what_cannot_be_drawn_is_refused_in_words() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(CganError, match=f"the seed is {seed}"):
            Generator.load().picture("1", seed=seed)
    with pytest.raises(CganError, match="device is `gpu`: "):
        Generator.load(device="gpu")


def test_drawing_imports_none_of_the_pipeline_s_packages(tmp_path: Path) -> None:
    code = """
from contextlib import suppress
from cgan.cli import main
for words in ("draw 2024", "card hub"):
    sys.argv = ["cgan", *words.split()]
    with suppress(SystemExit):
        main()
import cgan
assert cgan.Generator.load().picture("2024").size == (448, 112)
assert not [name for name in sys.modules if name.partition(".")[0] in absent]
"""
    words = run_python(BLOCKER + code, tmp_path)
    assert words.startswith("drawn/2024.png: ") and (tmp_path / "drawn/2024.png").is_file()
    card = (tmp_path / "hub/README.md").read_text()
    assert "Legible: 99.5 %" in card and "| Fréchet distance | 0.102 |  | 0.0436 | lower |" in card
