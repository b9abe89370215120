"""Stage render: pictures of the trained networks and of their training."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Project
from PIL import Image

from cgan.data.contact_sheet import add_row_names, image_grid, layout
from cgan.models.model_file import load_generator
from cgan.pipeline.project import BESIDE_REAL, GENERATOR, REAL_SAMPLES
from cgan.stages import render

STAGE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]
OUTPUTS = STAGE["outs"] + STAGE["plots"]


@pytest.mark.usefixtures("copied")
def test_it_writes_what_dvc_yaml_lists_the_same_bytes_each_time() -> None:
    made = {path: Path(path).read_bytes() for path in OUTPUTS}
    for path in OUTPUTS:
        Path(path).unlink()
    before = {*Path().rglob("*")}
    torch.randn(10)
    render.main()
    assert {str(path) for path in {*Path().rglob("*")} - before} == {*OUTPUTS}
    assert {path: Path(path).read_bytes() for path in OUTPUTS} == made


def test_drawings_stand_beside_the_real_images_of_their_class(finished: Project) -> None:
    folder = finished.folder
    with Image.open(folder / BESIDE_REAL) as sheet, Image.open(folder / REAL_SAMPLES) as real:
        left, right = np.split(np.asarray(sheet)[render.CAPTION_HEIGHT :], [real.width], axis=1)
        assert np.array_equal(left, np.asarray(real))
    # Enlarged four times, two pixels apart; the third row.
    drawn = right[2 * 34 + 2 :, render.SEPARATOR_WIDTH + 2 :]
    labels = torch.arange(3).repeat_interleave(10)
    images = load_generator(folder / GENERATOR)[0].draw(labels, render.SEED)
    assert np.array_equal(drawn[:32:4, :48:4], images[20, 0].numpy())
    assert np.array_equal(drawn[:32:4, 9 * 50 : 9 * 50 + 48 : 4], images[29, 0].numpy())


def test_a_row_has_two_to_ten_images_as_many_as_fit() -> None:
    found = [layout(*sides) for sides in ((28, 28), (80, 130), (256, 256))]
    assert found == [(2, 10), (1, 5), (1, 2)]


def test_names_that_no_font_here_has_become_numbers() -> None:
    picture = np.zeros((60, 30), np.uint8)
    numbered = add_row_names(picture, ["0", "1"])
    assert np.array_equal(add_row_names(picture, ["\u732b", "k"]), numbered)
    assert not np.array_equal(add_row_names(picture, ["Füße", "k"]), numbered)


def test_image_grid_puts_each_image_in_its_row_and_column() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 5, 4), np.uint8)
    grid = image_grid(images, padding=2, background=9, scale=3)
    expected = np.full((2 * (15 + 2) + 2, 3 * (12 + 2) + 2, 3), 9)
    for row in range(2):
        for column in range(3):
            y, x = 2 + row * 17, 2 + column * 14
            image = images[row, column].transpose(1, 2, 0)
            expected[y : y + 15, x : x + 12] = image.repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(grid, expected)
