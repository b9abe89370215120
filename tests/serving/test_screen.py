"""Drawings in a terminal: what its characters show, how much of them, and when they are shown."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cgan.cli import app
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import draw
from cgan.serving.screen import ASCII_SHADES, Inks, Terminal, on_screen

LARGE = Terminal(400, 100)
ESCAPE = re.compile(r"\x1b\[[\d;]*m")


def drawings(count: int, channels: int = 1, height: int = 28, width: int = 28) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


def pixels_of(text: str) -> np.ndarray:
    """What a terminal with all colours shows: [H, W, 3]."""
    rows: list[list[str]] = []
    for line in filter(lambda line: "▀" in line, text.splitlines()):
        above, below = [], []
        colours: tuple[str, ...] = ()
        for escape, _ in re.findall(r"(\x1b\[[\d;]*m)|(▀)", line):
            if escape.startswith("\x1b[38;2;"):
                colours = re.findall(r"[34]8;2;(\d+;\d+;\d+)", escape)
            elif not escape:
                above.append(colours[0])
                below.append(colours[1])
        rows += [above, below]
    return np.array([[list(map(int, colour.split(";"))) for colour in row] for row in rows])


def test_where_there_is_room_each_pixel_is_half_a_character() -> None:
    grey = drawings(3)
    shown = pixels_of(on_screen(grey, 1, None, LARGE))
    assert np.array_equal(shown[..., 0], np.concatenate(list(grey[:, 0].numpy()), axis=1))
    colour = drawings(2, 3, 10, 14)
    shown = pixels_of(on_screen(colour, 1, None, LARGE))
    inks = Inks.named("navy", "white")
    assert inks
    inked = pixels_of(on_screen(grey[:1], 1, inks, LARGE))
    assert np.array_equal(inked, inks.apply(grey[0, 0].numpy()))
    images = colour.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(shown, np.concatenate(list(images), axis=1))


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (9, 5), (1, 1)])
@pytest.mark.parametrize(("count", "rows"), [(1, 1), (50, 1), (100, 10)])
def test_nothing_is_wider_or_higher_than_the_terminal(
    columns: int, lines: int, count: int, rows: int
) -> None:
    for height, width in ((28, 28), (8, 100), (100, 8)):
        terminal = Terminal(columns, lines)
        text = on_screen(drawings(count, 1, height, width), rows, None, terminal).splitlines()
        picture = [ESCAPE.sub("", line) for line in text if "▀" in line]
        assert 0 < len(picture) <= max(1, lines - 3)
        assert max(map(len, picture)) <= columns
        assert len(text) <= len(picture) + 1


@pytest.mark.parametrize(
    ("of", "terminal", "shape"),
    [
        (drawings(4), Terminal(400, 40), (28, 112)),
        (drawings(4), Terminal(80, 40), (20, 80)),  # shrunk,
        (drawings(4), Terminal(30, 40), (2 * 16, 2 * 15)),  # and broken into lines
        (drawings(1, 1, 28, 56), Terminal(400, 10), (14, 28)),  # in its proportions
        (drawings(40, 1, 8, 8), LARGE, (2 * 8, 20 * 8)),  # twenty in a line
    ],
)
def test_what_is_too_wide_or_high_is_shrunk_and_then_broken(
    of: torch.Tensor, terminal: Terminal, shape: tuple[int, int]
) -> None:
    assert pixels_of(on_screen(of, 1, None, terminal)).shape == (*shape, 3)


def test_a_shrunken_drawing_is_the_mean_of_its_pixels() -> None:
    shown = pixels_of(on_screen(drawings(1), 1, None, Terminal(14, 40)))
    mean = drawings(1)[0, 0].double().view(14, 2, 14, 2).mean(dim=(1, 3)).numpy()
    assert np.abs(shown[..., 0] - mean).max() <= 0.5


def test_what_does_not_fit_is_left_out_and_the_last_line_says_how_much() -> None:
    grid = on_screen(drawings(100), 10, None, Terminal(80, 24)).splitlines()
    assert grid[-1] == "(5 of 10 rows; the file has all)"
    assert len(grid) == 5 * 4 + 1
    wide = on_screen(drawings(60), 2, None, Terminal(80, 24)).splitlines()
    assert wide[-1] == "(10 of 30 columns; the file has all)"
    long = on_screen(drawings(200), 1, None, Terminal(80, 24)).splitlines()
    assert long[-1] == "(5 of 20 lines; the file has all)"


def test_256_colours_are_the_nearest_that_there_are() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 2, 128)
    codes = re.findall(r"38;5;(\d+);48;5;(\d+)", on_screen(ramp, 1, None, Terminal(128, 9, 256)))
    assert codes[0] == ("16", "244") and codes[-1] == ("244", "231")
    assert {int(code) for pair in codes for code in pair} == {16, 231, *range(232, 256)}
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert "38;5;196;48;5;196m" in on_screen(red, 1, None, Terminal(80, 24, 256))


def test_without_colours_shades_show_the_ink_and_there_are_no_escapes() -> None:
    half = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    half[..., 4:] = 255
    for inks in (None, Inks.named("black", "white")):
        assert on_screen(half, 1, inks, Terminal(colours=0)) == "\n".join(["    ████"] * 4)
    assert "    @@@@" in on_screen(half, 1, None, Terminal(80, 24, 0, ASCII_SHADES))


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 2**24),
        ({"TERM": "xterm-direct"}, 2**24),
        ({"TERM": "xterm-256color"}, 256),
        ({"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, 0),
        ({"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": ""}, 2**24),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
        ({}, 0),
    ],
)
def test_colours_are_those_that_the_environment_names(
    environment: dict[str, str], colours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Terminal.here().colours == colours


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained generator where `cgan draw` looks for it."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLORTERM", "truecolor")
    torch.manual_seed(5)
    path = Path("models/generator.safetensors")
    save_network(path, build_generator(Architecture("deconv", 10, 1, 28, 28, 4, 6)), {})
    return path


def in_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What `cgan draw` prints on a real terminal of 90 columns and 30 lines."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
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
        patch.setattr("sys.__stdout__", terminal)
        app(["draw", *arguments], standalone_mode=False)
        terminal.write("END\n")
        terminal.flush()
        reader.join(30)
    os.close(ours)
    return b"".join(found).decode().replace("\r\n", "\n").removesuffix("END\n")


def test_a_terminal_shows_the_picture_and_its_files_name(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *picture, words = in_a_terminal(monkeypatch, "204").splitlines()
    images = draw(load_generator(model)[0], torch.tensor([2, 0, 4]), 0)[:, 0].numpy()
    shown = pixels_of("\n".join(picture))[..., 0]
    assert np.array_equal(shown, np.concatenate(list(images), axis=1))
    assert words == "drawn/204.png: 336×112 pixels, seed 0"


def test_show_and_no_show_are_heeded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "drawn/2.png: 112×112 pixels, seed 0\n"
    assert in_a_terminal(monkeypatch, "2", "--no-show") == words
    assert CliRunner().invoke(app, ["draw", "2"]).output == words
    shown = CliRunner().invoke(app, ["draw", "2", "--show"]).output
    assert pixels_of(shown).shape == (28, 28, 3) and shown.endswith(words)
    inverted = CliRunner().invoke(app, ["draw", "2", "--show", "--paper", "white"]).output
    assert np.array_equal(pixels_of(inverted), 255 - pixels_of(shown))
