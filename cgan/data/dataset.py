"""Checked images → the files that training reads: uint8 tensors and their facts.

Writing needs numpy alone; torch is imported when a file is loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cgan.errors import DataError
from cgan.files import replacing
from cgan.model import file_facts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, C, H, W] and labels int64 [N] on the CPU; `lines` int64 [N], where each row stands in
    the CSV, the header in line 1 (None for what was never in one).

    `metadata`: `classes` (int), `count` (int), `shape` (C, H, W), `part` (train or holdout),
    `csv_sha256` (of the CSV), `digest` (sha256 of images and labels; the reference set's hash), and
    `class_names` where the classes have names.
    """

    images: torch.Tensor
    labels: torch.Tensor
    metadata: dict[str, Any]
    lines: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return int(self.metadata["classes"])

    @property
    def class_names(self) -> list[str]:
        """One a class, in the order of the labels; numbers where they have no names."""
        named: list[str] = self.metadata.get("class_names") or [str(n) for n in range(self.classes)]
        return named


def image_digests(images: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """16 bytes an image, [N]. Equal images have equal ones."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.fromiter(digests, "S16", len(images))


def first_copies(digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """For each image the index of the first one that is equal to it, by `image_digests`; int64 [N]."""
    _, firsts, kinds = np.unique(digests, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = firsts[kinds]
    return found


def split(
    images: NDArray[np.uint8], labels: NDArray[np.int64], holdout_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training part and of the hold-out, each ascending; together all images.

    Stratified: each class gives `holdout_fraction` of its images, at least one. Identical images stay
    on one side, also when their labels differ (they count for the first one's class).
    """
    firsts = first_copies(image_digests(images))
    order = np.random.default_rng(seed).random(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    sizes = np.bincount(firsts, minlength=len(labels))
    for label in np.unique(labels):
        mine = np.flatnonzero((labels == label) & (sizes > 0))  # one index a distinct image
        if len(mine) < 2:
            raise DataError(
                f"class {label}: {len(mine)} distinct image{'s' * (len(mine) != 1)}, a hold-out needs at "
                "least 2. Add images of this class, or remove it."
            )
        mine = mine[np.argsort(order[mine], kind="stable")]
        quota = max(1, round(int(sizes[mine].sum()) * holdout_fraction))
        fits = int(np.searchsorted(np.cumsum(sizes[mine]), quota, side="right"))
        held[mine[: min(max(1, fits), len(mine) - 1)]] = True
    side = held[firsts]
    return np.flatnonzero(~side), np.flatnonzero(side)


def save_dataset(
    path: Path | str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    lines: NDArray[np.int64],
    metadata: dict[str, Any],
) -> None:
    """Write atomically; equal content gives equal bytes. `metadata` must be plain JSON."""
    images, labels, lines = map(np.ascontiguousarray, (images, labels, lines))
    facts = {
        "kind": "dataset",
        "count": len(labels),
        "shape": list(images.shape[1:]),
        "digest": _digest(images, labels),
        **metadata,
    }
    tensors: dict[str, NDArray[Any]] = {"images": images, "labels": labels, "lines": lines}
    with replacing(path) as temporary:
        save_file(tensors, temporary, file_facts.metadata_of(facts))


def read_facts(path: Path | str) -> file_facts.Facts:
    """The metadata alone, without torch; the images aren't read, so they may be damaged. Raises as
    `load_dataset` does."""
    return file_facts.read_facts(path, "dataset")


def load_dataset(path: Path | str) -> Dataset:
    """Read and check a file of `save_dataset`. Raises as `cgan.model.file_facts.opened` does."""
    path = Path(path)
    with file_facts.opened(path, "dataset", "pt") as (file, facts):
        # Copies: pages of the file would count as memory of ours, and change with it.
        names = ("images", "labels", "lines")
        images, labels, lines = (file.get_tensor(name).clone() for name in names)
    if _digest(images.numpy(), labels.numpy()) != facts["digest"]:
        raise file_facts.damaged(path)
    return Dataset(images, labels, facts, lines)


def _digest(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(images.data)
    digest.update(labels.data)
    return digest.hexdigest()
