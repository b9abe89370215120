"""Small labelled images, CSVs of them, archives, the digits of the sample, and an untrained generator."""

import functools
import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgan.model.model_file import save_generator
from cgan.model.networks import Architecture, build_generator
from cgan.readers.sources import mnist_sample


@functools.cache
def sample_digits() -> tuple[Tensor, Tensor]:
    """The 5,000 of the embedded sample, sorted by class: images uint8 [N, 1, 28, 28], labels int64 [N]."""
    pixels, labels = (torch.from_numpy(array) for array in mnist_sample())
    return pixels.view(-1, 1, 28, 28), labels.long()


def make_images(
    per_class: int = 12,
    classes: int = 3,
    side: int = 8,
    channels: int = 1,
    seed: int = 0,
    width: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Distinct images uint8 [N, C, side, `width` or side], a bright column a class, and shuffled labels [N].
    tests/uneven.py has images that hide less."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(classes), per_class))
    images = random.integers(0, 60, (len(labels), channels, side, width or side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :, label % side] = 255
    return images, labels.astype(np.int64)


def csv_lines(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[str]:
    """Header and rows in Kaggle's form, no line ends."""
    flat = images.reshape(len(images), -1)
    header = ",".join(["label", *(f"pixel{i}" for i in range(flat.shape[1]))])
    rows = zip(labels.tolist(), flat.tolist(), strict=True)
    return [header, *(",".join(map(str, [label, *pixels])) for label, pixels in rows)]


def write_csv(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(csv_lines(images, labels)) + "\n")
    return path


def a_model(path: Path, *architecture: Any, seed: int = 0, **facts: Any) -> Path:
    """A generator of random weights: what it draws has all kinds of pixels."""
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
