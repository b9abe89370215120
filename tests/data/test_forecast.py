"""What `cgan validate` says of a run before it starts."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import write_params
from synthetic import make_images
from typer.testing import CliRunner

from cgan.cli import app
from cgan.images import Images
from cgan.pipeline.data import forecast
from cgan.pipeline.data.forecast import next_step
from cgan.pipeline.params_file import load_params


def found(per_class: int = 30) -> Images:
    images, labels = make_images(per_class=per_class)
    return Images(images, labels, list("abc"))


@pytest.mark.usefixtures("project")
def test_lines_say_what_a_run_will_do_and_three_held_out_images_are_called_too_few() -> None:
    params = load_params()
    preprocess = params.preprocess.model_copy(update={"holdout_fraction": 0.1})
    params = params.model_copy(update={"preprocess": preprocess})
    lines = [*forecast.forecast(found(), params)]
    assert lines[0] == "To train on: 27 of each of 3 classes."
    assert lines[1].startswith(
        "Held out: 3 of each of 3 classes. 3 or fewer say nothing about a class (a, b, c)"
    )
    assert "`preprocess.holdout_fraction: 0.3`" in lines[1]
    assert lines[2].startswith("Chosen for these images: ")
    assert re.match(
        r"Time on this machine \(cpu, \d+ cores\): about [\d.]+ (s|min|h): \d", lines[3]
    )
    many = found(60)
    splits = (np.arange(len(many.labels)) % 3).astype(np.uint8)
    lines = [*forecast.forecast(replace(many, splits=splits), params)]
    assert lines[1] == (
        "Held out: 21 of a, 21 of b, 18 of c. For `cgan evidence` to test on: 19 of a, 21 of b, 20 of c."
    )
    unequal = np.delete(np.arange(len(many.labels)), np.flatnonzero(many.labels == 1)[:20])
    lines = [*forecast.forecast(many.at(unequal), params)]
    assert lines[0] == "To train on: 54 of a, 36 of b, 54 of c."


@pytest.mark.usefixtures("project")
def test_the_time_of_a_sampler_is_that_of_all_its_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def draw(labels: torch.Tensor, _seed: int) -> None:
        clock[0] += 0.5 * len(labels)

    sampler = SimpleNamespace(draw=draw, seconds_per_drawing=0.5, shape=(1, 8, 8), classes=3)
    monkeypatch.setattr(forecast, "seconds_of_judge", lambda *_: 0.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    params = load_params()
    choice = cast(Any, SimpleNamespace(params=params.train, sampler=sampler))
    count = forecast.drawings_of_a_run(found(), params, choice.sampler)
    assert forecast.run_time(found(), params, choice).generator == 0.5 * count > 30


@pytest.mark.usefixtures("project")
def test_the_next_step_names_the_settings_that_lead_to_this_file() -> None:
    data = load_params().data.model_copy(update={"source": "sample", "path": "data/inbox"})
    aside, said = "`data.source: file` and `data.path: tiles`", "set {} in params.yaml, then"
    assert said.format(aside) in next_step(Path("tiles"), data)
    assert said.format("`data.source: file`") in next_step(Path("data/inbox/tiles"), data)


def test_the_command_says_them_beside_a_params_file(project: Path) -> None:
    """Also where a sampler needs fewer images than a GAN's batch has."""
    write_params(project, train={"generator": "local_score", "batch_size": 1000})
    said = CliRunner().invoke(app, ["validate", str(project / "inbox/digits.csv")])
    assert said.exit_code == 0 and "Time on this machine" in said.output
    assert said.output.splitlines()[-1].startswith("Next: `dvc repro`; it makes reports/run.html")
