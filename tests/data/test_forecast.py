"""What `cgan validate` says of a run before it starts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_images
from typer.testing import CliRunner

from cgan.cli import app
from cgan.images import Images
from cgan.pipeline.data.forecast import forecast, next_step
from cgan.pipeline.params_file import load_params


@pytest.mark.usefixtures("project")
def test_lines_say_how_the_images_will_be_divided() -> None:
    pixels, labels = make_images(per_class=60)
    images, params = Images(pixels, labels, list("abc")), load_params()
    lines = [*forecast(images, params)]
    assert lines[:2] == [
        "To train on: 45 of each of 3 classes.",
        "Held out: 15 of each of 3 classes.",
    ]
    assert lines[2].startswith("Chosen for these images: ") and len(lines) == 3
    splits = (np.arange(len(images)) % 3).astype(np.uint8)
    _, held_out, test, _ = forecast(replace(images, splits=splits), params)
    assert held_out == "Held out: 21 of a, 21 of b, 18 of c."
    assert test == "To test on: 19 of a, 21 of b, 20 of c."


@pytest.mark.usefixtures("project")
def test_the_next_step_names_the_settings() -> None:
    data = load_params().data.model_copy(update={"source": "sample", "path": "data/inbox"})
    both = "set `data.source: file` and `data.path: tiles` in params.yaml, then"
    assert both in next_step(Path("tiles"), data)
    assert "set `data.source: file` in" in next_step(Path("data/inbox/tiles"), data)


def test_the_command_ends_with_the_next_step(project: Path) -> None:
    said = CliRunner().invoke(app, ["validate", str(project / "inbox/digits.csv")])
    assert said.exit_code == 0 and "Held out: 3 of each of 3 classes." in said.output
    assert said.output.splitlines()[-1].startswith("Next: `dvc repro`; it makes reports/run.html")
