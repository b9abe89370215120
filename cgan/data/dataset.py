"""Checked images → the files that training reads: uint8 tensors and their facts.

Writing needs numpy alone; torch is imported when a file is loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cgan.files import replacing
from cgan.model import file_facts

if TYPE_CHECKING:
    import torch


SPLITS = ("train", "val", "test")
DIGESTED = {"dataset": ("images", "labels"), "pictures": ("images", "labels", "splits", "groups")}

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """What a source holds: `images` uint8 [N, C, H, W]; `labels` int64 [N], all below `classes`; `lines`
    int64 [N], where each stands: its line in the CSV, the header in line 1; or the number of its picture.

    `sha256`: of the CSV's bytes, or of the pictures' arrays. `files`: of each picture, empty for a CSV.
    `class_names`: None where they are 0, 1, …. `splits` uint8 [N]: index of SPLITS; `groups` int64 [N]: equal
    ones belong on one side of any split; both None where the source says nothing of them.
    """

    images: NDArray[np.uint8]
    labels: Rows
    lines: Rows
    classes: int
    sha256: str
    size_bytes: int
    warnings: tuple[str, ...] = ()
    files: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    splits: NDArray[np.uint8] | None = None
    groups: Rows | None = None

    def at(self, rows: Rows) -> LabelledImages:
        """Some of the images."""
        chosen: dict[str, Any] = {n: getattr(self, n)[rows] for n in ("images", "labels", "lines")}
        groups = None if self.groups is None else self.groups[rows]
        files = [self.files[row] for row in rows] if self.files else []
        return replace(self, **chosen, groups=groups, splits=None, files=files)

    def place(self, row: int) -> str:
        """Where a reader finds an image."""
        return self.files[row] if self.files else f"row {row + 1} (line {self.lines[row]})"


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, C, H, W] and labels int64 [N] on the CPU; `lines` and `groups` as in LabelledImages
    (None where nothing is known of them).

    `metadata`: `classes` (int), `count` (int), `shape` (C, H, W), `part` (train or holdout),
    `csv_sha256` (of the CSV), `digest` (sha256 of images and labels; the reference set's hash), and
    `class_names` where the classes have names.
    """

    images: torch.Tensor
    labels: torch.Tensor
    metadata: dict[str, Any]
    lines: torch.Tensor | None = None
    groups: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return int(self.metadata["classes"])

    @property
    def class_names(self) -> list[str]:
        """One a class, in the order of the labels; numbers where they have no names."""
        return list(self.metadata.get("class_names") or map(str, range(self.classes)))

    @property
    def counts(self) -> torch.Tensor:
        """Images of each class, int64 [classes]."""
        return self.labels.bincount(minlength=self.classes)

    def at(self, rows: torch.Tensor | NDArray[np.int64]) -> Dataset:
        """Some of the images: by their indices, or bool [N]."""
        lines, groups = (None if n is None else n[rows] for n in (self.lines, self.groups))
        return Dataset(self.images[rows], self.labels[rows], self.metadata, lines, groups)


def image_digests(images: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """16 bytes an image, [N]. Equal images have equal ones."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.fromiter(digests, "S16", len(images))


def first_copies(values: NDArray[Any]) -> Rows:
    """For each value, such as an image's digest, the index of the first one equal to it; int64 [N]."""
    _, firsts, kinds = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(firsts[kinds])


def save_dataset(
    path: Path | str,
    images: NDArray[np.uint8],
    labels: Rows,
    lines: Rows,
    metadata: dict[str, Any],
    groups: Rows | None = None,
) -> None:
    """Write atomically; equal content gives equal bytes. `metadata` must be plain JSON."""
    facts = {"kind": "dataset", "count": len(labels), "shape": list(images.shape[1:])}
    facts |= {"digest": digest_of(images, labels), **metadata}
    _write(path, {"images": images, "labels": labels, "lines": lines, "groups": groups}, facts)


def load_dataset(path: Path | str) -> Dataset:
    """Read and check a file of `save_dataset`. Raises as `cgan.model.file_facts.opened` does."""
    import torch

    arrays, facts = _read(Path(path), "dataset")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Dataset(**tensors, metadata=facts)


def save_pictures(path: Path, pictures: LabelledImages) -> None:
    """Write what pictures became, without their files' names, atomically; equal pictures give equal bytes."""
    facts = {"kind": "pictures", "digest": pictures.sha256}
    facts |= {name: getattr(pictures, name) for name in ("class_names", "classes", "warnings")}
    _write(path, {name: getattr(pictures, name) for name in DIGESTED["pictures"]}, facts)


def load_pictures(path: Path, files: list[str]) -> LabelledImages:
    """Read and check a file of `save_pictures`. Raises as `cgan.model.file_facts.opened` does."""
    arrays, facts = _read(path, "pictures")
    return LabelledImages(
        **arrays,
        lines=np.arange(1, len(arrays["labels"]) + 1),
        classes=facts["classes"],
        sha256=facts["digest"],
        size_bytes=arrays["images"].nbytes,
        warnings=tuple(facts["warnings"]),
        files=files,
        class_names=facts["class_names"],
    )


def _write(path: Path | str, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
    present = {name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None}
    with replacing(path) as temporary:
        save_file(present, temporary, file_facts.metadata_of(facts))


def _read(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, as copies: pages of the file would count as memory of ours, and change with it."""
    with file_facts.opened(path, kind, "np") as (file, facts):
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    if digest_of(*(arrays[name] for name in DIGESTED[kind] if name in arrays)) != facts["digest"]:
        raise file_facts.damaged(path)
    return arrays, facts


def digest_of(images: NDArray[np.uint8], *more: NDArray[Any]) -> str:
    """sha256 of images and what belongs to them, such as labels."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    for array in (images, *more):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
