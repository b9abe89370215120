"""Labelled images that hide nothing: take these for a test before any toy of equal squares.

Drawings of three things, 8 pixels high and 12 wide, which a small judge tells apart:

- named classes, and NAMES (the labels' order) differs from their order in the alphabet, and in every place;
- classes of unequal size, rows in no order;
- groups of unequal size, numbered in no order; in each class two images of different groups are equal,
  so that these two groups belong together, too;
- with `channels=3`, three planes that differ.
"""

import functools
import io
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.arrays import pixels_digest
from cgan.data.images import Images
from cgan.data.read import mnist_sample
from cgan.models.model_file import save_generator
from cgan.models.networks import Architecture, build_generator
from cgan.models.sampling import encode_png

HEIGHT, WIDTH = 8, 12
NAMES = ["pear", "apple", "fig"]  # as sorted: 1, 2, 0
COUNTS = [24, 12, 20]
GROUP_SIZES = [5, 1, 3, 2, 1]  # in turn
GROUP_IN_NAME = r"g(\d+)-"
UNEVEN: dict[str, dict[str, Any]] = {
    "validate": {"class_names": NAMES, "height": HEIGHT, "width": WIDTH},
}
"""Changes to params.yaml by which the CSV is read."""


def uneven(
    times: int = 1,
    channels: int = 1,
    seed: int = 0,
    *,
    counts: Sequence[int] = COUNTS,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Images:
    """`times` so many images of each class. Other seeds give other images, in another order, in groups of
    other numbers. Classes after the third, called kind3, kind4, are like these, and darker."""
    random = np.random.default_rng(seed)
    labels, groups = list[int](), list[int]()
    for label, count in enumerate(np.array(counts) * times):
        labels += [label] * count
        first = max(groups, default=-1) + 1
        groups += np.repeat(np.arange(count) + first, (GROUP_SIZES * count)[:count])[
            :count
        ].tolist()
    images = np.stack([_drawing(label, (channels, height, width), random) for label in labels])
    for label in range(len(counts)):
        start = labels.index(label)
        # The one of the second group is one of the first.
        images[start + min(GROUP_SIZES[0], counts[label] * times - 1)] = images[start]
    order, numbers = random.permutation(len(labels)), random.permutation(max(groups) + 1)
    data = Images(
        images[order],
        np.array(labels)[order],
        (NAMES + [f"kind{n}" for n in range(3, len(counts))])[: len(counts)],
        numbers[groups][order],
        lines=np.arange(len(labels)) + 2,
        notes=(),
    )
    assert data.groups is not None
    return replace(data, source_sha256=pixels_digest(data.pixels, data.labels, data.groups))


def _drawing(
    label: int, shape: tuple[int, int, int], random: np.random.Generator
) -> NDArray[np.uint8]:
    """A bar across, a bar down or a ring, none in the middle: uint8 of this shape."""
    channels, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width]
    y = rows - (height - 3) / 2 - random.normal(0, 0.5)
    x = columns - (width - 3) / 2 - random.normal(0, 0.5)
    distance = [y**2, x**2, (np.hypot(y - 1, x - 1) - 2.5) ** 2][label % 3]
    tint = 0.7 ** (label // 3) * np.array([240, 170, 90])[:channels]
    planes = np.stack([bright * np.exp(-distance) for bright in tint])
    return np.clip(planes + random.normal(0, 40, planes.shape), 0, 255).astype(np.uint8)


def plain(data: Images) -> Images:
    """Pixels and labels alone: no names, no groups."""
    return Images(data.pixels, data.labels, notes=())


def csv_lines(data: Images) -> list[str]:
    """Header and rows in Kaggle's form; with a column of groups, which have names, if there are some."""
    flat = data.pixels.reshape(len(data.pixels), -1)
    pixels = [f"pixel{i}" for i in range(flat.shape[1])]
    if data.groups is None:
        lines = [["label", *pixels], *np.column_stack([data.labels, flat]).tolist()]
    else:
        rows = zip(data.labels.tolist(), data.groups.tolist(), flat.tolist(), strict=True)
        lines = [["label", "group", *pixels], *([n, f"g{group}", *row] for n, group, row in rows)]
    return [",".join(map(str, line)) for line in lines]


def write_csv(path: Path, data: Images) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(csv_lines(data)) + "\n")
    return path


def write_folder(path: Path, data: Images) -> Path:
    """A folder per class. Rows are numbered, so that the files' order is that of the rows within a class."""
    assert data.groups is not None
    for row, (label, group) in enumerate(zip(data.labels, data.groups, strict=True)):
        file = path / NAMES[label] / f"g{group}-{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        planes = data.pixels[row]
        picture = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
        file.write_bytes(encode_png(picture))
    return path


@functools.cache
def sample_digits() -> tuple[Tensor, Tensor]:
    """The 5,000 of the embedded sample, sorted by class: images uint8 [N, 1, 28, 28], labels int64 [N]."""
    pixels, labels = (torch.from_numpy(array) for array in mnist_sample())
    return pixels.view(-1, 1, 28, 28), labels.long()


def a_model(path: Path, *architecture: Any, seed: int = 0, **facts: Any) -> Path:
    """The file of a generator of random weights: what it draws has all kinds of pixels."""
    torch.manual_seed(seed)
    network = build_generator(Architecture(*(architecture or ("deconv", 10, 1, 28, 28, 8, 8))))
    save_generator(path, network, {"seed": seed, **facts})
    return path


def zip_of(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A text is what a link points to."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG) << 16
            archive.writestr(entry, content, method)
    return file.getvalue()


def moved(images: Tensor, pixels: int) -> Tensor:
    """Each another way, `pixels` at most, with black where it leaves room."""
    random = torch.Generator().manual_seed(0)
    ways = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=random)
    ways[:, 0] = pixels  # none stays where it was
    wide, side = F.pad(images, [pixels] * 4), images.shape[2]
    pairs = zip(wide, (pixels - ways).tolist(), strict=True)
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in pairs])


def noise(images: Tensor, deviation: float) -> Tensor:
    random = torch.Generator().manual_seed(0)
    found = images + deviation * torch.randn(images.shape, generator=random)
    return found.round().clamp(0, 255).to(torch.uint8)


def trifling(images: Tensor) -> Tensor:
    """The same with trifles: a pixel aside, darker or brighter, and noise."""
    random = torch.Generator().manual_seed(0)
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1, generator=random)
    return noise((moved(images, 1) * brightness).clamp(0, 255), 10)
