"""Drawings in a terminal: what its characters show, how much of it, and when."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.screen import show


def drawings(count: int, channels: int = 1, height: int = 28, width: int = 28) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8)


def shown(
    images: torch.Tensor, rows: int = 1, size: tuple[int, int] = (400, 100), encoding: str = "utf-8"
) -> str:
    """What a terminal of so many columns and lines gets."""
    file = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    width, height = size
    console = Console(
        file=file, force_terminal=True, width=width, height=height, color_system="truecolor"
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
    images = drawings(2, 3, 10, 14)
    side_by_side = np.concatenate(list(images.permute(0, 2, 3, 1).numpy()), axis=1)
    assert np.array_equal(pixels_of(shown(images)), side_by_side)
    assert shown(images, encoding="ascii") == ""


def test_what_is_too_wide_or_high_is_shrunk_or_left_out() -> None:
    for size in ((80, 24), (9, 5), (1, 1)):
        for count, rows, shape in ((1, 1, (28, 28)), (50, 1, (8, 100)), (100, 10, (100, 8))):
            text = re.sub(r"\x1b\[[\d;]*m", "", shown(drawings(count, 1, *shape), rows, size))
            picture = [line for line in text.splitlines() if "▀" in line]
            assert 0 < len(picture) <= max(1, size[1] - 3) and max(map(len, picture)) <= size[0]
    last = shown(drawings(100), 10, size=(80, 24)).splitlines()[-1]
    assert "5 of 10 rows, 10 of 10 columns" in last


@pytest.mark.parametrize("colours", [None, "1"])
def test_the_picture_is_shown_in_a_terminal_alone(
    colours: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": None, "FORCE_COLOR": colours}
    draw = ["draw", "204", "--model", "digits"]
    said = CliRunner().invoke(app, draw, env={**env, "COLUMNS": "90", "LINES": "30"}).output
    assert said.endswith("drawn/204.png: 336×112 pixels, seed 0\n")
    assert said.count("▀") == (3 * 28 * 14 if colours else 0)
