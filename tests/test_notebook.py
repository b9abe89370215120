"""docs/notebook.ipynb: it runs from top to bottom, and shows what it shows on the page."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


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
