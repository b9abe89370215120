"""`cgan draw`: every form that it writes, and what it says when it cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import a_model
from PIL import Image
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.models.model_file import load_generator

GREY = ("deconv", 10, 1, 28, 28, 4, 6)
COLOUR = ("deconv", 12, 3, 10, 14, 4, 6)
MANY = ("deconv", 300, 1, 8, 8, 4, 6)  # labels above 255
MODEL = Path("models/generator.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with an untrained grey generator where `dvc repro` puts it."""
    monkeypatch.chdir(tmp_path)
    a_model(MODEL, *GREY)


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["draw", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    """The message of a draw that must fail, as the entry point prints it."""
    return str(CliRunner().invoke(app, ["draw", *arguments]).exception)


def pixels(*arguments: str) -> np.ndarray:
    """Of the picture that these make."""
    output(*arguments, "--out", "out/x.png")
    with Image.open("out/x.png") as picture:
        return np.asarray(picture)


def expected(labels: list[int], seed: int = 0) -> np.ndarray:
    """What the generator draws: uint8 [N, C, H, W]."""
    return load_generator(MODEL)[0].draw(torch.tensor(labels), seed).numpy()


def in_a_row(labels: list[int], seed: int = 0) -> np.ndarray:
    return np.concatenate(list(expected(labels, seed)[:, 0]), axis=1)


def test_a_text_is_drawn_and_a_long_one_in_lines() -> None:
    large = pixels("2024", "--seed", "7")
    assert np.array_equal(large[::4, ::4], in_a_row([2, 0, 2, 4], 7))
    found = pixels("1234567890" * 5)
    assert found.shape == (3 * 28, 17 * 28), "lines of 17, 17 and 16, and no more than 20"
    row = np.concatenate([in_a_row([*range(1, 10), 0] * 5), np.zeros((28, 28), np.uint8)], axis=1)
    assert np.array_equal(found, np.concatenate(np.split(row, 3, axis=1)))


def test_a_grid_has_ten_rows_of_the_text_or_of_every_class() -> None:
    for arguments, labels, scale in ((["407"], [4, 0, 7], 4), ([], list(range(10)), 3)):
        found = pixels(*arguments, "--grid")
        side = 28 * scale
        assert found.shape == (10 * (side + 1) + 1, len(labels) * (side + 1) + 1)
        for index, image in enumerate(expected(labels * 10)[:, 0]):
            y, x = 1 + index // len(labels) * (side + 1), 1 + index % len(labels) * (side + 1)
            assert np.array_equal(found[y : y + side : scale, x : x + side : scale], image)


@pytest.mark.parametrize("architecture", [COLOUR, MANY], ids=["colour", "many"])
def test_a_set_is_written_in_every_form(architecture: tuple[Any, ...]) -> None:
    a_model(MODEL, *architecture)
    classes = architecture[1]
    labels = list(range(classes)) * 3
    images = expected(labels, 3)
    words = f"{classes * 3} drawings, 3 of each of {classes} classes, seed 3\n"
    outs = ("set.npz", "set.csv", "set", "deep/set/")
    for out in outs:
        assert output("--per-class", "3", "--seed", "3", "--out", out) == f"{out}: {words}"
    pictures = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    with np.load("set.npz", allow_pickle=False) as drawn:
        assert drawn["labels"].tolist() == labels and "class_names" not in drawn
        assert np.array_equal(drawn["images"], pictures)
    table = pd.read_csv("set.csv")
    assert list(table.columns) == ["label", *(f"pixel{i}" for i in range(images[0].size))]
    assert table["label"].tolist() == labels
    planes = images.reshape(len(images), -1)  # R, G and B one after the other
    assert np.array_equal(table.drop(columns="label").to_numpy(), planes)
    for folder in outs[2:]:
        paths = [Path(folder, f"{n}/{n}_{i // classes:05d}.png") for i, n in enumerate(labels)]
        assert set(paths) == set(Path(folder).rglob("*.png"))
        for path, picture in zip(paths, pictures, strict=True):
            assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_classes_are_drawn_by_name_into_the_folder_drawn() -> None:
    names = ["../../top", "猫", *map(str, range(2, 10))]
    a_model(MODEL, *GREY, class_names=names)
    assert output("猫,../../TOP 9").startswith("drawn/猫,..-..-TOP-9.png: 336×112")
    assert np.array_equal(pixels("猫,../../TOP 9")[::4, ::4], in_a_row([1, 0, 9]))
    assert output("../../top").startswith("drawn/top.png: ")
    assert all(word in refusal("dog") for word in ("'dog'", "../../top, 猫, 2, 3, "))
    output("--per-class", "1")
    with np.load("drawn/set.npz", allow_pickle=False) as drawn:
        assert drawn["class_names"].tolist() == names


def test_the_packages_own_gives_way_to_the_projects() -> None:
    own = np.concatenate(list(Generator.load().draw("20", 7)), axis=1)
    assert np.array_equal(pixels("20", "--seed", "7")[::4, ::4], in_a_row([2, 0], 7))
    assert np.array_equal(pixels("20", "--seed", "7", "--model", "digits")[::4, ::4], own)
    MODEL.unlink()
    assert np.array_equal(pixels("20", "--seed", "7")[::4, ::4], own)
    for words in (["20"], ["--grid"], ["--per-class", "1"]):
        assert output(*words).endswith(", by the generator of digits that comes with cgan\n")
    assert {path.name for path in Path("drawn").iterdir()} == {"20.png", "grid.png", "set.npz"}


ONE_OF = "TEXT or --grid (or both), or --per-class"
REFUSED = {
    "20x4": "'20x4' is not a class. The classes are 0 to 9.",
    "1 --model none.safetensors": "none.safetensors: not found. Expected a file",
    "1 --model elsewhere/models/generator.safetensors": "`dvc repro`",
    "": ONE_OF,
    "2 --per-class 3": ONE_OF,
    "2 --out year.jpg": ".png",
    "--per-class 2 --out drawn.png": ".npz, .csv",
    "--per-class 1000000000 --out drawn.npz": "at most",
    "--per-class 20000 --out drawn/": "at most",
    f"{'1' * 300_000} --out long.png": "at most",
    "--per-class 1 --out full": "not empty",
    "2 --model cut.safetensors --out old.png": "cut.safetensors: ",
}


def test_what_cannot_be_drawn_is_refused_and_no_file_is_touched() -> None:
    Path("cut.safetensors").write_bytes(MODEL.read_bytes()[:-100])
    for name in ("old.png", "old.npz", "full/file"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("kept")

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    before = files()
    for arguments, words in REFUSED.items():
        message = refusal(*arguments.split())
        assert words in message and "\n" not in message
        assert files() == before, arguments
