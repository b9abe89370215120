"""A third kind of generator is a class and a line: everything that draws, judges and shows takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NAMES, running, uneven
from torch import Tensor
from typer.testing import CliRunner

import cgan
from cgan.base.progress import Progress, silent
from cgan.cli import app
from cgan.models.generative import GenerativeModel, ModelSizes
from cgan.models.kinds import KINDS, GeneratorKind
from cgan.params.sections import JudgeParams


class MeanImages(GenerativeModel):
    """Draws the mean image of the class, with noise."""

    means: Tensor

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        classes, channels, height, width = means.shape
        self.architecture = ModelSizes("mean", classes, channels, height, width)

    @classmethod
    def from_file(
        cls, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> GenerativeModel:
        return cls(tensors["means"])

    @classmethod
    def from_images(
        cls, images: Tensor, labels: Tensor, params: Mapping[str, Any]
    ) -> GenerativeModel:
        return cls(torch.stack([images[labels == n].float().mean(0) for n in labels.unique()]))

    @property
    def description(self) -> str:
        return "mean image of each class"

    def draw(self, labels: Tensor, seed: int, progress: Progress = silent) -> Tensor:
        streams = [torch.Generator().manual_seed(seed + n) for n in range(len(labels))]
        noise = torch.stack([torch.randn(self.shape, generator=each) for each in streams])
        return (self.means[labels] + 20 * noise).clamp(0, 255).to(torch.uint8)


def test_a_third_kind_is_a_class_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cgan.quality.evaluate.JudgeParams", lambda: JudgeParams(total_kimg=0.5))
    monkeypatch.setitem(KINDS, "mean", GeneratorKind("Noisy means", f"{__name__}:MeanImages"))
    train, held_out = uneven(times=4).split(0.25, seed=1)
    run = cgan.fit(train, generator="mean", progress=False)
    assert run.finished and run.params.relevant() == {"generator": "mean"}
    assert run.history.empty and run.discriminator is None and "base64" in run._repr_html_()
    assert "none: a mean image of each class" in repr(run)
    short: dict[str, Any] = {"samples": 300, "gan_train_kimg": 0.0}
    evaluation = cgan.evaluate(run.generator, train, held_out, **short)
    assert evaluation.is_about(run.generator.facts)
    cgan.write_page("run.html", run, evaluation, train=train, held_out=held_out)
    page = Path("run.html").read_text()
    assert "This generator was not trained" in page and "More images would" in page
    assert 'id="gallery-drawings"' in page and "<canvas" not in page and "DCGAN" not in page
    run.generator.save("g.safetensors")
    drawn = run.generator.draw(NAMES, seed=3)
    assert np.array_equal(cgan.Generator.load("g.safetensors").draw(NAMES, seed=3), drawn)
    card = CliRunner().invoke(app, ["card", "hub", "--model", "g.safetensors"])
    assert card.exit_code == 0, card.output
    assert "# Noisy means that draws 3 classes" in Path("hub/README.md").read_text()
    with running("g.safetensors") as client:
        assert client.get("/draw?text=fig").headers["content-type"] == "image/png"
        assert 'src="draw?' in client.get("/").text
        assert client.get("/healthz").json()["model"]["caution"] is None
