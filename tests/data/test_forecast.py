"""What `cgan validate` says of a run before it starts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import NAMES

from cgan.images import Images
from cgan.pipeline.data.forecast import forecast, next_step
from cgan.pipeline.params_file import load_params


@pytest.mark.usefixtures("project")
def test_lines_say_how_the_images_will_be_divided() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (168, 8, 12), dtype=np.uint8)
    labels, params = np.repeat([0, 1, 2], [72, 36, 60]), load_params()
    images = Images(pixels, labels, NAMES)
    lines = [*forecast(images, params)]
    assert lines[:2] == [
        "To train on: 54 of pear, 27 of apple, 45 of fig.",
        "Held out: 18 of pear, 9 of apple, 15 of fig.",
    ]
    assert lines[2].startswith("Chosen for these images: ")
    splits = np.array([0, 1, 1, 2], np.uint8)[np.arange(168) % 4]
    assert [*forecast(replace(images, splits=splits), params)][:3] == [
        "To train on: 18 of pear, 9 of apple, 15 of fig.",
        "Held out: 36 of pear, 18 of apple, 30 of fig.",
        "To test on: 18 of pear, 9 of apple, 15 of fig.",
    ]


@pytest.mark.usefixtures("project")
def test_the_next_step_names_the_settings() -> None:
    data = load_params().data.model_copy(update={"source": "sample", "path": "data/inbox"})
    both = "set `data.source: file` and `data.path: tiles` in params.yaml, then `dvc repro`"
    assert both in next_step(Path("tiles"), data)
    assert "set `data.source: file` in" in next_step(Path("data/inbox/tiles"), data)
    configured = data.model_copy(update={"source": "file"})
    assert next_step(Path("data/inbox"), configured).startswith("Next: `dvc repro`; it makes rep")
