"""CSVs of any size out of the embedded digits: shifted, darkened and noisy, so that hardly two are equal.

`python -m benchmarks.synthetic_csv FILE ROWS` writes one. It streams: memory is that of a block.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cgan.data.read import mnist_sample

BLOCK = 5_000  # rows that are made at once
SHIFT = 2  # pixels


def write_csv(path: Path, rows: int, seed: int = 0) -> Path:
    images, labels = mnist_sample()
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        ",".join(["label", *(f"pixel{i}" for i in range(784))]) + "\n", encoding="utf-8"
    )
    for start in range(0, rows, BLOCK):
        chosen = random.integers(len(labels), size=min(BLOCK, rows - start))
        flat = _changed(images[chosen].reshape(-1, 28, 28), random).reshape(len(chosen), -1)
        table = pd.DataFrame(np.column_stack([labels[chosen], flat]))
        table.to_csv(path, mode="a", header=False, index=False)
    return path


def _changed(digits: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [N, 28, 28]: shifted, of other strength, with noise in the ink."""
    shifts = random.integers(-SHIFT, SHIFT + 1, (len(digits), 2)).tolist()
    found = np.stack([np.roll(each, by, (0, 1)) for each, by in zip(digits, shifts, strict=True)])
    strength = random.uniform(0.7, 1.0, (len(found), 1, 1))
    ink = np.maximum(found * strength, random.integers(0, 24, found.shape))
    return np.where(found > 0, ink, 0).astype(np.uint8)


if __name__ == "__main__":
    write_csv(Path(sys.argv[1]), int(sys.argv[2]))
