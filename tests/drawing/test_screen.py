"""Drawings in a terminal: what its characters show, how much of them, and when they are shown."""

import io
import itertools
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.screen import show

ESCAPE = re.compile(r"\x1b\[[\d;]*m")


def drawings(count: int, channels: int = 1, height: int = 28, width: int = 28) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


def shown(
    images: torch.Tensor,
    rows: int = 1,
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
    show(images, rows, console)
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


def test_nothing_is_wider_or_higher_than_the_terminal() -> None:
    kinds = itertools.product(
        ((80, 24), (9, 5), (1, 1)), ((1, 1), (50, 1), (100, 10)), ((28, 28), (8, 100), (100, 8))
    )
    for size, (count, rows), shape in kinds:
        text = ESCAPE.sub("", shown(drawings(count, 1, *shape), rows, size=size))
        picture = [line for line in text.splitlines() if "▀" in line]
        assert 0 < len(picture) <= max(1, size[1] - 3)
        assert max(map(len, picture)) <= size[0]
        assert len(text.splitlines()) <= len(picture) + 1


def test_what_is_too_wide_or_high_is_shrunk_to_the_mean_of_its_pixels_and_then_broken() -> None:
    for images, size, height, width in (
        (drawings(4), (400, 40), 28, 112),
        (drawings(4), (80, 40), 20, 80),  # shrunk,
        (drawings(4), (30, 40), 2 * 16, 2 * 15),  # and broken into lines
        (drawings(1, 1, 28, 56), (400, 10), 14, 28),  # in its proportions
        (drawings(40, 1, 8, 8), (400, 100), 2 * 8, 20 * 8),  # twenty in a line
    ):
        assert pixels_of(shown(images, size=size)).shape == (height, width, 3)
    small = pixels_of(shown(drawings(1), size=(14, 40)))[..., 0]
    mean = drawings(1)[0, 0].double().view(14, 2, 14, 2).mean(dim=(1, 3)).numpy()
    assert np.abs(small - mean).max() <= 0.5


def test_what_does_not_fit_is_left_out_and_the_last_line_says_how_much() -> None:
    for count, rows, words in (
        (100, 10, "5 of 10 rows, 10 of 10 columns"),
        (60, 2, "2 of 2 rows, 10 of 30 columns"),
        (200, 1, "5 of 20 rows"),
    ):
        assert words in shown(drawings(count), rows, size=(80, 24)).splitlines()[-1]


def test_with_fewer_colours_the_nearest_are_shown_and_with_none_nothing() -> None:
    half = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    half[..., 4:] = 255
    assert "38;5;16;48;5;16m▀" in shown(half, colours="256")
    assert shown(half, colours=None) == shown(half, encoding="ascii") == ""


def test_the_picture_is_shown_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    environment = {"TERM": "xterm", "COLORTERM": "truecolor", "COLUMNS": "90", "LINES": "30"}
    words = "drawn/204.png: 336×112 pixels, seed 0\n"

    def said(**more: str) -> str:
        env = {"NO_COLOR": None, "FORCE_COLOR": None, **environment, **more}
        return CliRunner().invoke(app, ["draw", "204", "--model", "digits"], env=env).output

    assert said() == words
    text = said(FORCE_COLOR="1")
    assert text.count("▀") == 3 * 28 * 14 and text.endswith(words)
