"""Drawings in a terminal: what its characters show, how much of it, and when."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.screen import show

CELL = re.compile(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")


def drawings(count: int, channels: int = 1, height: int = 28, width: int = 28) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8)


def shown(images: torch.Tensor, rows: int = 1, width: int = 400, height: int = 100) -> list[str]:
    """The lines that a terminal of so many columns and lines gets."""
    options: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor"}
    console = Console(file=io.StringIO(), width=width, height=height, **options)
    with console.capture() as captured:
        show(images, rows, console)
    return captured.get().splitlines()


def test_where_there_is_room_each_pixel_is_half_a_character() -> None:
    images = drawings(2, 3, 10, 14)
    side_by_side = np.concatenate(list(images.permute(0, 2, 3, 1).numpy()), axis=1)
    cells = np.array([CELL.findall(line) for line in shown(images)], int)  # [rows, columns, 6]
    pairs = cells.reshape(*cells.shape[:2], 2, 3).swapaxes(1, 2)
    assert np.array_equal(pairs.reshape(side_by_side.shape), side_by_side)


def test_what_is_too_wide_or_high_is_shrunk_or_left_out() -> None:
    for width, height in ((80, 24), (9, 5), (1, 1)):
        for count, rows, shape in ((1, 1, (28, 28)), (50, 1, (8, 100)), (100, 10, (100, 8))):
            lines = shown(drawings(count, 1, *shape), rows, width, height)
            wide = [line.count("▀") for line in lines if "▀" in line]
            one = max(1, round(shape[0] * min(shape[1], width) / shape[1] / 2))
            assert 0 < len(wide) <= max(one, height - 3) and max(wide) <= width
    assert shown(drawings(100), 10, 80, 24)[-1] == "(the file has more)"


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
