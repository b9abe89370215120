"""Drawings in a terminal: what its characters show, how much of them, and when they are shown."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cgan.cli import app
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import draw
from cgan.serving.picture import Inks
from cgan.serving.screen import show

ESCAPE = re.compile(r"\x1b\[[\d;]*m")


def drawings(count: int, channels: int = 1, height: int = 28, width: int = 28) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


def shown(
    images: torch.Tensor,
    rows: int = 1,
    inks: Inks | None = None,
    size: tuple[int, int] = (400, 100),
    colours: str | None = "truecolor",
    encoding: str = "utf-8",
) -> str:
    """What a terminal of so many columns and lines gets."""
    file = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    console = Console(
        file=file,
        force_terminal=True,
        width=size[0],
        height=size[1],
        color_system=colours,  # type: ignore[arg-type]
        _environ={},
    )
    show(images, rows, inks, console)
    file.seek(0)
    return file.read()


def pixels_of(text: str) -> np.ndarray:
    """What a terminal with all colours shows: [H, W, 3]."""
    cell = re.compile(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")
    found = [cell.findall(line) for line in text.splitlines() if "▀" in line]
    cells = np.array(found, int)  # [rows, columns, 6]
    return cells.reshape(*cells.shape[:2], 2, 3).swapaxes(1, 2).reshape(-1, cells.shape[1], 3)


def test_where_there_is_room_each_pixel_is_half_a_character() -> None:
    grey, colour = drawings(3), drawings(2, 3, 10, 14)
    side_by_side = np.concatenate(list(grey[:, 0].numpy()), axis=1)
    assert np.array_equal(pixels_of(shown(grey))[..., 0], side_by_side)
    images = colour.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels_of(shown(colour)), np.concatenate(list(images), axis=1))
    inks = Inks.named("navy", "white")
    assert inks
    assert np.array_equal(pixels_of(shown(grey, 1, inks)), inks.apply(side_by_side))


@pytest.mark.parametrize("size", [(80, 24), (9, 5), (1, 1)])
@pytest.mark.parametrize(("count", "rows"), [(1, 1), (50, 1), (100, 10)])
def test_nothing_is_wider_or_higher_than_the_terminal(
    size: tuple[int, int], count: int, rows: int
) -> None:
    for height, width in ((28, 28), (8, 100), (100, 8)):
        text = ESCAPE.sub("", shown(drawings(count, 1, height, width), rows, size=size))
        picture = [line for line in text.splitlines() if "▀" in line]
        assert 0 < len(picture) <= max(1, size[1] - 3)
        assert max(map(len, picture)) <= size[0]
        assert len(text.splitlines()) <= len(picture) + 1


@pytest.mark.parametrize(
    ("of", "size", "shape"),
    [
        (drawings(4), (400, 40), (28, 112)),
        (drawings(4), (80, 40), (20, 80)),  # shrunk,
        (drawings(4), (30, 40), (2 * 16, 2 * 15)),  # and broken into lines
        (drawings(1, 1, 28, 56), (400, 10), (14, 28)),  # in its proportions
        (drawings(40, 1, 8, 8), (400, 100), (2 * 8, 20 * 8)),  # twenty in a line
    ],
)
def test_what_is_too_wide_or_high_is_shrunk_and_then_broken(
    of: torch.Tensor, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    assert pixels_of(shown(of, size=size)).shape == (*shape, 3)


def test_a_shrunken_drawing_is_the_mean_of_its_pixels() -> None:
    pixels = pixels_of(shown(drawings(1), size=(14, 40)))
    mean = drawings(1)[0, 0].double().view(14, 2, 14, 2).mean(dim=(1, 3)).numpy()
    assert np.abs(pixels[..., 0] - mean).max() <= 0.5


@pytest.mark.parametrize(
    ("count", "rows", "words"),
    [(100, 10, "5 of 10 rows"), (60, 2, "10 of 30 columns"), (200, 1, "5 of 20 lines")],
)
def test_what_does_not_fit_is_left_out_and_the_last_line_says_how_much(
    count: int, rows: int, words: str
) -> None:
    last = shown(drawings(count), rows, size=(80, 24)).splitlines()[-1]
    assert last == f"({words}; the file has all)"


def test_with_fewer_colours_the_nearest_are_shown_and_with_none_shades() -> None:
    half = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    half[..., 4:] = 255
    assert "38;5;16;48;5;16m▀" in shown(half, colours="256")
    for inks in (None, Inks.named("black", "white")):
        assert shown(half, 1, inks, colours=None) == "    ████\n" * 4
    assert shown(half, encoding="ascii") == "    @@@@\n" * 4


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained generator where `cgan draw` looks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {
        "TERM": "xterm",
        "COLORTERM": "truecolor",
        "COLUMNS": "90",
        "LINES": "30",
    }.items():
        monkeypatch.setenv(name, value)
    torch.manual_seed(5)
    path = Path("models/generator.safetensors")
    save_network(path, build_generator(Architecture("deconv", 10, 1, 28, 28, 4, 6)), {})
    return path


def in_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What `cgan draw` prints on a real terminal."""
    ours, its = pty.openpty()
    found = []

    def read() -> None:
        while part := os.read(ours, 65536):
            found.append(part)
            if part.endswith(b"END\r\n"):
                break

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(its, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        app(["draw", *arguments], standalone_mode=False)
        terminal.write("END\n")
        terminal.flush()
        reader.join(30)
    os.close(ours)
    return b"".join(found).decode().replace("\r\n", "\n").removesuffix("END\n")


def test_a_terminal_shows_the_picture_and_its_files_name_unless_no_show_is_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *picture, words = in_a_terminal(monkeypatch, "204").splitlines()
    images = draw(load_generator(model)[0], torch.tensor([2, 0, 4]), 0)[:, 0].numpy()
    pixels = pixels_of("\n".join(picture))[..., 0]
    assert np.array_equal(pixels, np.concatenate(list(images), axis=1))
    assert words == "drawn/204.png: 336×112 pixels, seed 0"
    assert in_a_terminal(monkeypatch, "204", "--no-show") == f"{words}\n"
    assert CliRunner().invoke(app, ["draw", "204"]).output == f"{words}\n"
    forced = CliRunner().invoke(app, ["draw", "204", "--show", "--paper", "white"]).output
    assert np.array_equal(pixels_of(forced)[..., 0], 255 - pixels)
    assert forced.endswith(f"{words}\n")
