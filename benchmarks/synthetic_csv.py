"""CSVs of any size out of the embedded digits: shifted, darkened and noisy, so that hardly two are equal.

`python -m benchmarks.synthetic_csv FILE ROWS` writes one. It streams: memory is that of a block.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgan.data.sources import mnist_sample

BLOCK_VALUES = 4_000_000  # of rows that are made at once
SHIFT = 2  # pixels
TEXTS = np.zeros((1001, 4), np.uint8)  # a number and its comma, left-aligned
for _number in range(len(TEXTS)):
    _text = f"{_number},".encode()[:4]
    TEXTS[_number, : len(_text)] = list(_text)


def write_csv(
    path: Path,
    rows: int,
    classes: int = 10,
    side: int = 28,
    channels: int = 1,
    imbalance: float = 1.0,
    seed: int = 0,
) -> Path:
    """Digits in `channels` 1 or 3; beyond ten classes a class is a digit in a hue.

    `imbalance`: how many times the first class is as frequent as the last; in between, geometrically.
    """
    if classes > 10 and channels == 1:
        raise ValueError("more than ten classes are told apart by their hue: channels 3")
    images, labels = mnist_sample()
    digits = images.reshape(-1, 28, 28)
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    random = np.random.default_rng(seed)
    weights = np.geomspace(imbalance, 1, classes)
    pixels = channels * side * side
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(",".join(["label", *(f"pixel{i}" for i in range(pixels))]).encode() + b"\n")
        for start in range(0, rows, step := max(1, BLOCK_VALUES // pixels)):
            count = min(step, rows - start)
            asked = random.choice(classes, count, p=weights / weights.sum())
            if start == 0:  # a small file has every class, too
                asked[: min(count, 2 * classes)] = np.arange(2 * classes)[:count] % classes
            of = np.array([random.choice(by_digit[label % 10]) for label in asked])
            drawn = _moved(digits[of], side, random)
            flat = _coloured(drawn, asked // 10, classes, channels).reshape(count, -1)
            file.write(_as_text(np.column_stack([asked, flat])))
    return path


def _moved(digits: NDArray[np.uint8], side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [N, side, side]: enlarged by whole pixels, shifted, of other strength, with noise in the ink."""
    scale = max(1, side // 28)
    large = digits.repeat(scale, axis=1).repeat(scale, axis=2)[:, :side, :side]
    room = side - large.shape[1]
    large = np.pad(large, ((0, 0), (room // 2, room - room // 2), (room // 2, room - room // 2)))
    found = np.empty_like(large)
    for image, (down, right), target in zip(
        large, random.integers(-SHIFT, SHIFT + 1, (len(large), 2)), found, strict=True
    ):
        target[:] = np.roll(image, (down, right), (0, 1))
    strength = random.uniform(0.7, 1.0, (len(found), 1, 1)).astype(np.float32)
    noise = random.integers(0, 24, found.shape, dtype=np.uint8)
    ink = np.maximum(found * strength, noise)
    return np.where(found > 0, ink, 0).astype(np.uint8)


def _coloured(
    images: NDArray[np.uint8], hue: NDArray[np.int64], classes: int, channels: int
) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W]: `hue` counts round the circle of colours."""
    if channels == 1:
        return images[:, None]
    angle = 2 * np.pi * (hue / max(1, -(-classes // 10)))[:, None] + 2 * np.pi / 3 * np.arange(3)
    tint = (0.55 + 0.45 * np.cos(angle)).astype(np.float32)
    return (images[:, None] * tint[:, :, None, None]).astype(np.uint8)


def _as_text(table: NDArray[np.int64]) -> bytes:
    """Rows of numbers 0–999 as CSV."""
    text = TEXTS[table]
    ends = (text == ord(",")).argmax(axis=2)[:, -1]
    text[np.arange(len(text)), -1, ends] = ord("\n")
    return text[text > 0].tobytes()


if __name__ == "__main__":
    write_csv(Path(sys.argv[1]), int(sys.argv[2]))
