"""`cgan draw`: every form that it writes, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner, Result

from cgan.cli import app
from cgan.errors import CganError
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import draw
from cgan.serving.generator import Generator

GREY = Architecture("deconv", 10, 1, 28, 28, 4, 6)
COLOUR = Architecture("embed", 12, 3, 10, 14, 4, 6)
MODEL = Path("models/generator.safetensors")


def save(architecture: Architecture) -> None:
    torch.manual_seed(5)
    save_network(MODEL, build_generator(architecture), {"seed": 5})


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an untrained grey generator where `dvc repro` puts it."""
    monkeypatch.chdir(tmp_path)
    save(GREY)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["draw", *arguments])


def refusal(*arguments: str) -> str:
    """The message of a draw that must fail, as the entry point prints it."""
    result = run(*arguments)
    assert isinstance(result.exception, CganError), result.output
    return str(result.exception)


def files() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path().rglob("*") if p.is_file()}


def opened(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def expected(labels: list[int], seed: int) -> np.ndarray:
    """What the generator draws: uint8 [N, C, H, W]."""
    return draw(load_generator(MODEL)[0], torch.tensor(labels), seed).numpy()


def test_a_text_is_drawn_digit_by_digit_with_nothing_between() -> None:
    result = run("2024", "--seed", "7", "--out", "out/year.png", "--scale", "3")
    assert result.exit_code == 0, result.output
    assert result.output == "out/year.png: 336×84 pixels, seed 7\n"
    pixels = opened("out/year.png")[::3, ::3]
    assert np.array_equal(pixels, np.concatenate(list(expected([2, 0, 2, 4], 7)[:, 0]), axis=1))


def test_what_gets_no_name_goes_where_git_does_not_look() -> None:
    for arguments in (["31415"], ["--grid", "--rows", "1"], ["--per-class", "1"]):
        assert run(*arguments).exit_code == 0
    assert sorted(files()) == [
        *("drawn/31415.png", "drawn/grid.png", "drawn/set.npz"),
        str(MODEL),
    ]
    assert "/drawn/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_long_text_is_drawn_in_lines_and_enlarged_less_so_that_it_fits_a_page() -> None:
    assert run("1234567890" * 5, "--out", "long.png").exit_code == 0
    pixels = opened("long.png")
    assert pixels.shape == (3 * 28, 17 * 28), "lines of 17, 17 and 16, and no more than 20"
    digits = expected([int(digit) for digit in "1234567890" * 5], 0)[:, 0]
    assert np.array_equal(pixels[:28], np.concatenate(list(digits[:17]), axis=1))
    assert np.array_equal(pixels[56:, : 16 * 28], np.concatenate(list(digits[34:]), axis=1))
    assert not pixels[56:, 16 * 28 :].any()


def test_a_grid_has_rows_of_variants_of_the_text_or_of_every_class() -> None:
    assert run("407", "--grid", "--rows", "3", "--scale", "1", "--out", "grid.png").exit_code == 0
    images = expected([4, 0, 7] * 3, 0)[:, 0]
    pixels = opened("grid.png")
    assert pixels.shape == (3 * 29 + 1, 3 * 29 + 1)
    for index, image in enumerate(images):
        y, x = 1 + index // 3 * 29, 1 + index % 3 * 29
        assert np.array_equal(pixels[y : y + 28, x : x + 28], image)
    assert run("--grid", "--rows", "2", "--scale", "1").exit_code == 0
    pixels = opened("drawn/grid.png")
    assert pixels.shape == (2 * 29 + 1, 10 * 29 + 1), "every class"
    assert np.array_equal(pixels[1:29, -29:-1], expected(list(range(10)), 0)[9, 0])


def test_a_set_as_npz_has_images_and_labels_and_needs_no_pickle() -> None:
    result = run("--per-class", "7", "--seed", "3", "--out", "drawn.npz")
    assert result.output == "drawn.npz: 70 drawings, 7 of each of 10 classes, seed 3\n"
    with np.load("drawn.npz", allow_pickle=False) as drawn:
        images, labels = drawn["images"], drawn["labels"]
    assert images.shape == (70, 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [7] * 10
    assert np.array_equal(images, expected(labels.tolist(), 3)[:, 0])
    assert run("--per-class", "3", "--seed", "3", "--out", "few.npz").exit_code == 0
    with np.load("few.npz", allow_pickle=False) as few:
        assert np.array_equal(few["images"], images[:30]), "a smaller set is the beginning"


def test_a_set_as_csv_is_in_kaggles_form() -> None:
    assert run("--per-class", "2", "--seed", "3", "--out", "drawn.csv").exit_code == 0
    table = pd.read_csv("drawn.csv")
    assert list(table.columns) == ["label", *(f"pixel{i}" for i in range(784))]
    images = expected(table["label"].tolist(), 3)
    assert np.array_equal(table.drop(columns="label").to_numpy(), images.reshape(20, 784))


@pytest.mark.parametrize("out", ["drawn/", "deep/drawn"])
def test_a_set_as_a_folder_has_a_png_for_each_drawing(out: str) -> None:
    assert run("--per-class", "2", "--seed", "3", "--out", out).exit_code == 0
    images = expected(list(range(10)) * 2, 3)[:, 0]
    names = [f"{index % 10}/{index % 10}_{index // 10:05d}.png" for index in range(20)]
    assert sorted(names) == sorted(str(path.relative_to(out)) for path in Path(out).rglob("*.png"))
    for name, image in zip(names, images, strict=True):
        assert np.array_equal(opened(f"{out}/{name}"), image)
    assert not list(Path(out).parent.glob(".*.tmp"))


def test_colour_and_more_than_ten_classes_work_in_every_form() -> None:
    save(COLOUR)
    assert run("11,0 3", "--out", "text.png", "--scale", "1").exit_code == 0
    pixels = opened("text.png")
    images = expected([11, 0, 3], 0).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels, np.concatenate(list(images), axis=1))

    for out in ("set.npz", "set.csv", "set"):
        assert run("--per-class", "1", "--out", out).exit_code == 0
    images = expected(list(range(12)), 0)
    with np.load("set.npz") as drawn:
        assert np.array_equal(drawn["images"], images.transpose(0, 2, 3, 1))
    planes = pd.read_csv("set.csv").drop(columns="label").to_numpy()
    assert np.array_equal(planes, images.reshape(12, -1)), "R, G, B planes one after the other"
    assert np.array_equal(opened("set/11/11_00000.png"), images[11].transpose(1, 2, 0))


def test_classes_are_drawn_by_name_into_a_file_that_stays_in_the_folder_drawn() -> None:
    names = ["../../top", "猫", *map(str, range(2, 10))]
    torch.manual_seed(5)
    save_network(MODEL, build_generator(GREY), {"class_names": names})
    assert run("猫,../../TOP 9", "--scale", "1").output.startswith(
        "drawn/猫,..-..-TOP-9.png: 84×28"
    )
    pixels = opened("drawn/猫,..-..-TOP-9.png")
    assert np.array_equal(pixels, np.concatenate(list(expected([1, 0, 9], 0)[:, 0]), axis=1))
    assert run("../../top").output.startswith("drawn/top.png: ")
    assert "'dog' is not a class. The classes are ../../top, 猫, 2, 3, " in refusal("dog")
    assert run("--per-class", "1").exit_code == 0
    with np.load("drawn/set.npz", allow_pickle=False) as drawn:
        assert drawn["class_names"].tolist() == names


def test_ink_and_paper_take_the_place_of_white_and_black() -> None:
    arguments = ("2024", "--scale", "1", "--out", "x.png")
    grey = np.concatenate(list(expected([2, 0, 2, 4], 0)[:, 0]), axis=1)
    for colours in (["--ink", "#000"], ["--paper", "white"]):
        assert run(*arguments, *colours).exit_code == 0
        assert np.array_equal(opened("x.png")[..., 1], 255 - grey), colours
    assert run(*arguments, "--ink", "navy", "--paper", "#fffff0").exit_code == 0
    pixels = opened("x.png")
    assert (pixels[grey == 0] == [255, 255, 240]).all()
    assert (pixels[grey == 255] == [0, 0, 128]).all()


def test_smooth_enlarges_each_drawing_by_lanczos() -> None:
    assert run("20", "--scale", "3", "--smooth", "--out", "x.png").exit_code == 0
    large = [
        np.asarray(Image.fromarray(image).resize((84, 84), Image.Resampling.LANCZOS))
        for image in expected([2, 0], 0)[:, 0]
    ]
    assert np.array_equal(opened("x.png"), np.concatenate(large, axis=1))


def test_open_hands_the_picture_to_the_systems_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xdg-open", "open"):
        Path(name).write_text('#!/bin/sh\necho "$@" > opened\n')
        Path(name).chmod(0o755)
    monkeypatch.setenv("PATH", str(Path.cwd()))
    assert run("2", "--open", "--out=-x.png").exit_code == 0
    assert Path("opened").read_text() == f"{Path.cwd()}/-x.png\n", "not an option"
    monkeypatch.setenv("PATH", "nowhere")
    assert "found no viewer. The picture is written: drawn/2.png" in refusal("2", "--open")
    assert Path("drawn/2.png").is_file()


def drawn_by_the_package(labels: list[int], seed: int) -> np.ndarray:
    return np.concatenate(list(Generator.load().draw(labels, seed)), axis=1)


def test_without_a_model_the_packages_own_draws_and_the_words_say_so() -> None:
    MODEL.unlink()
    words = "x.png: 112×28 pixels, seed 7, by the generator of digits that comes with cgan"
    arguments = ("2024", "--seed", "7", "--scale", "1", "--out", "x.png")
    assert run(*arguments).output == f"{words}\n"
    assert np.array_equal(opened("x.png"), drawn_by_the_package([2, 0, 2, 4], 7))
    assert run("--per-class", "1").output.endswith(f"{words.rpartition('7')[2]}\n")
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).touch()
    told = "cgan (models/generator.safetensors is not there yet: `dvc repro` trains this project's own)"
    assert told in run(*arguments).output


def test_the_packages_own_is_called_digits_and_else_gives_way_to_the_projects() -> None:
    arguments = ("20", "--scale", "1", "--out", "x.png")
    for model, pixels in (
        ([], np.concatenate(list(expected([2, 0], 0)[:, 0]), axis=1)),
        (["--model", "digits"], drawn_by_the_package([2, 0], 0)),
    ):
        assert run(*arguments, *model).output == "x.png: 56×28 pixels, seed 0\n"
        assert np.array_equal(opened("x.png"), pixels)


ONE_OF = "TEXT or --grid (or both), or --per-class"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("2 --ink blak", "`ink` blak: not a colour. Give a name, such as navy, or #RRGGBB."),
        ("2 --paper=", "`paper` : not a colour"),
        ("2 --ink red --paper #f00", "the same colour shows nothing"),
        ("20x4", "'x', character 3 of the text to draw, is not a class. The classes are 0 to 9."),
        ("1 --model none.safetensors", "none.safetensors: not found."),
        *((f"--per-class 2 --{option}", "makes data") for option in ("show", "open", "smooth")),
        *((f"--per-class 2 --{option}", "makes data") for option in ("ink=red", "paper=red")),
        ("", ONE_OF),
        ("2 --per-class 3", ONE_OF),
        ("--grid --per-class 3", ONE_OF),
        ("2 --out year.jpg", ".png"),
        ("2 --out drawn.npz", ".png"),
        ("--per-class 2 --out drawn.png", ".npz, .csv"),
        ("--per-class 2 --out drawn.parquet", ".npz, .csv"),
        ("--per-class 1000000000 --out drawn.npz", "at most"),
        ("--per-class 20000 --out drawn/", "at most"),
        pytest.param(f"{'1' * 5000} --scale 64 --out long.png", "at most", id="long"),
        pytest.param(f"{'12' * 500} --grid --rows 100 --scale 8", "at most", id="large"),
    ],
)
def test_f74_what_cannot_be_drawn_is_refused_in_words_and_no_file_is_touched(
    arguments: str, words: str
) -> None:
    before = files()
    assert words in refusal(*arguments.split())
    assert files() == before


def test_a_model_that_draws_in_colour_takes_no_ink() -> None:
    save(COLOUR)
    assert "this model draws in colour" in refusal("2", "--ink", "black")


@pytest.mark.parametrize(
    "arguments",
    [
        *("1 --seed -1", f"1 --seed {'9' * 30}", "1 --scale 0", "1 --scale nan"),
        *("--per-class 0", "--grid --rows 0", "--grid --rows 101"),
    ],
)
def test_a_number_out_of_range_is_a_usage_error(arguments: str) -> None:
    assert run(*arguments.split()).exit_code == 2


FORMS = [["2", "--out", "old.png"], ["--per-class", "1", "--out", "old.npz"]]
FORMS += [["--per-class", "1", "--out", "old.csv"], ["--per-class", "1", "--out", "old/"]]


@pytest.mark.parametrize("arguments", FORMS, ids=lambda a: a[-1])
def test_f38_a_damaged_model_is_refused_in_a_line_and_no_file_is_touched(
    arguments: list[str],
) -> None:
    MODEL.write_bytes(MODEL.read_bytes()[:-100])
    for name in ("old.png", "old.npz", "old.csv"):
        Path(name).write_text("kept")
    before = files()
    message = refusal(*arguments)
    assert "\n" not in message and message.startswith("models/generator.safetensors: ")
    assert files() == before


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="root writes anywhere"
)
@pytest.mark.parametrize("arguments", [FORMS[0], FORMS[-1]], ids=lambda a: a[-1])
def test_f55_a_read_only_folder_is_refused_with_the_reason(arguments: list[str]) -> None:
    folder = Path("locked")
    folder.mkdir()
    (folder / "old.png").write_text("kept")
    folder.chmod(0o555)
    command = [sys.executable, "-m", "cgan.cli", "draw", *arguments[:-1], f"locked/{arguments[-1]}"]
    if os.geteuid() == 0:
        # Root without this capability is bound by permissions like everybody.
        drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        command = [*drop, *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: --out locked/{arguments[-1]}: cannot be written (Permission denied). "
        "Name another place.\n"
    )
    assert [path.name for path in folder.iterdir()] == ["old.png"]
    assert (folder / "old.png").read_text() == "kept"


def test_an_empty_folder_is_filled_and_one_with_something_in_it_is_not_written_into() -> None:
    Path("drawn.v2").mkdir()
    assert run("--per-class", "1", "--out", "drawn.v2").exit_code == 0
    assert len(list(Path("drawn.v2").rglob("*.png"))) == 10
    before = files()
    assert "not empty" in refusal("--per-class", "1", "--out", "drawn.v2")
    assert files() == before


def test_an_existing_picture_is_replaced_not_written_through() -> None:
    Path("cache").write_text("linked from elsewhere")
    os.link("cache", "year.png")
    assert run("1", "--out", "year.png").exit_code == 0
    assert Path("cache").read_text() == "linked from elsewhere"
    with Image.open("year.png") as picture:
        assert picture.size == (112, 112)
