"""Labelled images that hide nothing: take these for a test before any toy of equal squares.

Drawings of three things, 8 pixels high and 12 wide, which a small judge tells apart:

- named classes, and NAMES (the labels' order) differs from their order in the alphabet, and in every place;
- classes of unequal size, rows in no order;
- groups of unequal size, numbered in no order; in each class two images of different groups are equal,
  so that these two groups belong together, too;
- with `channels=3`, three planes that differ.

    data = uneven()                  # Images: 56 images; also times=3, channels=3, seed=1
    write_uneven_csv(path, data)     # label, group, pixels; PARAMS has what is needed to read it
    write_uneven_folder(path, data)  # CLASS/g<group>-<row>.png: here classes get their numbers in another
                                     # order than NAMES; GROUP_IN_NAME is for `preprocess.group`

The fixture `uneven_project` (conftest) is a working directory with small params and this data as its CSV.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.images import Images, pixels_digest
from cgan.model.sampling import encode_png

HEIGHT, WIDTH = 8, 12
NAMES = ["pear", "apple", "fig"]  # as sorted: 1, 2, 0
COUNTS = [24, 12, 20]
GROUP_SIZES = [5, 1, 3, 2, 1]  # in turn
GROUP_IN_NAME = r"g(\d+)-"
PARAMS: dict[str, dict[str, Any]] = {
    "validate": {"class_names": NAMES, "height": HEIGHT, "width": WIDTH},
}
"""Changes to params.yaml by which the CSV is read."""


def uneven(times: int = 1, channels: int = 1, seed: int = 0) -> Images:
    """`times` COUNTS images. Other seeds give other images, in another order, in groups of other numbers."""
    random = np.random.default_rng(seed)
    labels, groups = list[int](), list[int]()
    for label, count in enumerate(COUNTS):
        labels += [label] * count * times
        sizes = (GROUP_SIZES * count * times)[: count * times]
        first = max(groups, default=-1) + 1
        groups += np.repeat(np.arange(count * times) + first, sizes)[: count * times].tolist()
    images = np.stack([_drawing(label, channels, random) for label in labels])
    for label in range(len(COUNTS)):
        start = labels.index(label)
        # The one of the second group is one of the first.
        images[start + GROUP_SIZES[0]] = images[start]
    order, numbers = random.permutation(len(labels)), random.permutation(max(groups) + 1)
    data = Images(
        images[order],
        np.array(labels)[order],
        NAMES,
        numbers[groups][order],
        lines=np.arange(len(labels)) + 2,
    )
    assert data.groups is not None
    return replace(data, source_sha256=pixels_digest(data.pixels, data.labels, data.groups))


def _drawing(label: int, channels: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A bar across, a bar down or a ring, none in the middle: uint8 [C, HEIGHT, WIDTH]."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    y, x = rows - 2.5 - random.normal(0, 0.5), columns - 4.5 - random.normal(0, 0.5)
    distance = [y**2, x**2, (np.hypot(y - 1, x - 1) - 2.5) ** 2][label]
    tint = [240, 170, 90][:channels]
    planes = np.stack([bright * np.exp(-distance) for bright in tint])
    return np.clip(planes + random.normal(0, 40, planes.shape), 0, 255).astype(np.uint8)


def uneven_csv_lines(data: Images, *, grouped: bool = True) -> list[str]:
    """Header and rows in Kaggle's form, with a column of groups, which have names; no line ends."""
    flat = data.pixels.reshape(len(data.pixels), -1)
    columns = ["label", *["group"] * grouped, *(f"pixel{i}" for i in range(flat.shape[1]))]
    assert data.groups is not None
    rows = zip(data.labels.tolist(), data.groups.tolist(), flat.tolist(), strict=True)
    lines = [[label, *[f"g{group}"] * grouped, *pixels] for label, group, pixels in rows]
    return [",".join(map(str, line)) for line in [columns, *lines]]


def write_uneven_csv(path: Path, data: Images, *, grouped: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(uneven_csv_lines(data, grouped=grouped)) + "\n")
    return path


def write_uneven_folder(path: Path, data: Images) -> Path:
    """A folder a class. Rows are numbered, so that the files' order is that of the rows within a class."""
    assert data.groups is not None
    for row, (label, group) in enumerate(zip(data.labels, data.groups, strict=True)):
        file = path / NAMES[label] / f"g{group}-{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        planes = data.pixels[row]
        picture = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
        file.write_bytes(encode_png(picture))
    return path
