"""Stage render: pictures of the trained networks and of their training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image

from cgan.contact_sheet import add_row_names, contact_sheet, layout
from cgan.evaluation import Evaluation
from cgan.images import Images
from cgan.model.model_file import load_generator, save_discriminator, save_generator
from cgan.model.networks import Architecture, build_discriminator, build_generator
from cgan.project import (
    BESIDE_REAL,
    DISCRIMINATOR,
    EVALUATION,
    GENERATOR,
    LOSSES,
    PROBES,
    REAL_SAMPLES,
)
from cgan.stages import render

STAGE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]
OUTPUTS = STAGE["outs"] + STAGE["plots"]


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(project: Path) -> Path:
    """A project after the stage train, with untrained networks and losses."""
    columns = ("step", *(f"loss/{who}" for who in ("discriminator", "generator")))
    columns += ("logits/real_mean", "logits/fake_mean")
    LOSSES.parent.mkdir()
    LOSSES.write_text(f"{','.join(columns)}\n50,1.5,2.5,3,-1\n100,1.25,2,2,-0.5\n")
    PROBES.write_text("step\n")
    Evaluation(metrics={}, confusion=[[1] * 4] * 4).write(EVALUATION)
    torch.manual_seed(5)
    save_generator(GENERATOR, build_generator(Architecture("deconv", 4, 1, 8, 8, 4, 6)), {})
    save_discriminator(
        DISCRIMINATOR, build_discriminator(Architecture("projection", 4, 1, 8, 8, 4)), {}
    )
    images, labels = np.full((4, 1, 8, 8), 200, np.uint8), np.arange(4)
    contact_sheet(Images(images, labels, ["cat", "dog", "eel", "fox"]), 0).save(REAL_SAMPLES)
    return project


def test_it_writes_what_dvc_yaml_lists_the_same_bytes_each_time(trained: Path) -> None:
    before = {path for path in trained.rglob("*") if path.is_file()}
    render.main()
    written = {path for path in trained.rglob("*") if path.is_file()} - before
    assert sorted(str(path.relative_to(trained)) for path in written) == sorted(OUTPUTS)
    first = {path: Path(path).read_bytes() for path in OUTPUTS}
    torch.randn(10)
    render.main()
    assert {path: Path(path).read_bytes() for path in OUTPUTS} == first


def test_drawings_stand_beside_the_real_images_of_their_class(trained: Path) -> None:
    render.main()
    with Image.open(BESIDE_REAL) as sheet, Image.open(REAL_SAMPLES) as real:
        left, right = np.split(np.asarray(sheet)[render.CAPTION_HEIGHT :], [real.width], axis=1)
        assert np.array_equal(left, np.asarray(real))
    # Enlarged six times, two pixels apart; the third row.
    drawn = right[2 * 50 + 2 :, render.SEPARATOR_WIDTH + 2 :]
    labels = torch.arange(4).repeat_interleave(10)
    images = load_generator(GENERATOR)[0].draw(labels, render.SEED)
    assert np.array_equal(drawn[:48:6, :48:6], images[20, 0].numpy())
    assert np.array_equal(drawn[:48:6, 9 * 50 : 9 * 50 + 48 : 6], images[29, 0].numpy())


def test_a_row_has_two_to_ten_images_as_many_as_fit() -> None:
    found = [layout(*sides) for sides in ((28, 28), (80, 130), (256, 256))]
    assert found == [(2, 10), (1, 5), (1, 2)]


def test_names_that_no_font_here_has_become_numbers() -> None:
    picture = np.zeros((60, 30), np.uint8)
    numbered = add_row_names(picture, ["0", "1"])
    assert np.array_equal(add_row_names(picture, ["\u732b", "k"]), numbered)
    assert not np.array_equal(add_row_names(picture, ["Füße", "k"]), numbered)
