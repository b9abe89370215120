"""Checked images → the files that training reads: uint8 tensors and their facts.

Writing needs numpy alone; torch is imported when a file is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


SPLITS = ("train", "val", "test")
THUMBNAIL = 16  # pixels a side
NEAR = 0.9  # correlation
NEARER = 0.3  # the distance to a near copy, as a part of that to the tenth best
NEAR_LOOKED_AT, NEAR_AMONG = 1000, 20_000  # images of a class

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """What a source holds: `images` uint8 [N, C, H, W]; `labels` int64 [N], all below `classes`; `lines`
    int64 [N], where each stands: its line in the CSV, the header in line 1; or the number of its picture.

    `sha256`: of the CSV's bytes, or of the pictures' arrays. `files`: of each picture, empty for a CSV.
    `class_names`: None where they are 0, 1, …. `splits` uint8 [N]: index of SPLITS; `groups` int64 [N]: equal
    ones belong together; both None where the source says nothing of them.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    lines: NDArray[np.int64]
    classes: int
    sha256: str
    size_bytes: int
    warnings: tuple[str, ...] = ()
    files: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    splits: NDArray[np.uint8] | None = None
    groups: NDArray[np.int64] | None = None

    def at(self, rows: Rows) -> LabelledImages:
        """Some of the images, without their files."""
        groups = None if self.groups is None else self.groups[rows]
        images, labels, lines = self.images[rows], self.labels[rows], self.lines[rows]
        return replace(
            self, images=images, labels=labels, lines=lines, groups=groups, splits=None, files=[]
        )

    def place(self, row: int) -> str:
        """Where a reader finds an image."""
        return self.files[row] if self.files else f"row {row + 1} (line {self.lines[row]})"


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, C, H, W] and labels int64 [N] on the CPU; `lines` int64 [N], where each row stands in
    the CSV, the header in line 1, or the number of its picture (None for what was in neither); `groups` int64
    [N]: images with equal ones belong on one side of any split (None where nothing is known of them).

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


def units(images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """For each image the index of the first one that belongs on its side of any split: of its copies, and of
    those in its group, and of theirs; int64 [N]."""
    firsts = first_copies(image_digests(images))
    if groups is None:
        return firsts
    # By turns, the first of all copies takes on the first of its group, until nothing changes.
    found = firsts
    while True:
        before = found
        for kinds in (np.unique(groups, return_inverse=True)[1], firsts):
            least = np.full(len(found), len(found))
            np.minimum.at(least, kinds, found)
            found = least[kinds]
        if (found == before).all():
            return found


def split(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    holdout_fraction: float,
    seed: int,
    groups: NDArray[np.int64] | None = None,
    names: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training part and of the hold-out, each ascending; together all images.

    Stratified: each class gives `holdout_fraction` of its images, at least one. Identical images and those of
    one group stay on one side, also when their labels differ (they count for the first one's class).
    """
    firsts = units(images, groups)
    order = np.random.default_rng(seed).random(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    sizes = np.bincount(firsts, minlength=len(labels))
    of = labels
    if groups is not None:  # a group counts for its rarest class, which has fewest to choose from
        rarest = np.argsort(np.bincount(labels), kind="stable")
        rank = np.full(len(labels), len(rarest))
        np.minimum.at(rank, firsts, np.argsort(rarest)[labels])
        of = np.where(sizes > 0, rarest[rank.clip(max=len(rarest) - 1)], -1)
    for label in np.unique(labels):
        mine = np.flatnonzero((of == label) & (sizes > 0))  # one index a unit
        mine = mine[np.argsort(order[mine], kind="stable")]
        quota = max(1, round(int(sizes[mine].sum()) * holdout_fraction))
        fits = int(np.searchsorted(np.cumsum(sizes[mine]), quota, side="right"))
        held[mine[: max(0, min(max(1, fits), len(mine) - 1))]] = True
    side = held[firsts]
    for label in np.unique(labels):
        if len(np.unique(side[labels == label])) < 2:
            count = len(np.unique(firsts[labels == label]))
            what = "distinct image" if groups is None else "group of images"
            raise DataError(
                f"class {names[label] if names else label}: {count} {what}{'s' * (count != 1)}, a hold-out "
                "needs at least 2 that are of no other class. Add images of this class, or remove it."
            )
    return np.flatnonzero(~side), np.flatnonzero(side)


def near_copies(
    images: NDArray[np.uint8], labels: NDArray[np.int64], train: Rows, holdout: Rows
) -> list[tuple[int, int]]:
    """Held-out images, at most NEAR_LOOKED_AT a class, with a near copy of their class in the training part:
    each with that one.

    A near copy correlates with it, as a small grey picture, and far better than others do: digits of one
    class are alike too, but many of them are (Lowe, Int. J. Computer Vision 60, 2004, of keypoints).
    """
    found: list[tuple[int, int]] = []
    for label in np.unique(labels[holdout]):
        asked, known = (part[labels[part] == label] for part in (holdout, train))
        asked, known = asked[:NEAR_LOOKED_AT], known[:NEAR_AMONG]
        among, other = _thumbnails(images, known), min(10, max(2, len(known) // 3))
        if len(known) < other:
            continue
        for some in np.array_split(asked, len(asked) // 100 + 1):
            alike = _thumbnails(images, some) @ among.T
            best, usual = alike.max(axis=1), -np.partition(-alike, other - 1, axis=1)[:, other - 1]
            near = (best > NEAR) & (1 - best < NEARER * (1 - usual))
            found += zip(
                some[near].tolist(), known[alike.argmax(axis=1)[near]].tolist(), strict=True
            )
    return found


def _thumbnails(images: NDArray[np.uint8], rows: Rows) -> NDArray[np.float32]:
    """[N, THUMBNAIL²], each of mean 0 and length 1, so that a product of two is their correlation."""
    height, width = images.shape[2:]
    down, across = ((np.arange(THUMBNAIL + 1) * side // THUMBNAIL)[:-1] for side in (height, width))
    small = [
        np.add.reduceat(
            np.add.reduceat(images[each].mean(axis=1, dtype=np.float32), down, 1), across, 2
        )
        for each in np.array_split(rows, len(rows) // 1000 + 1)
    ]
    flat = np.concatenate(small).reshape(len(rows), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    thumbnails: NDArray[np.float32] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
    return thumbnails


def save_dataset(
    path: Path | str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    lines: NDArray[np.int64],
    metadata: dict[str, Any],
    groups: NDArray[np.int64] | None = None,
) -> None:
    """Write atomically; equal content gives equal bytes. `metadata` must be plain JSON."""
    images, labels, lines = map(np.ascontiguousarray, (images, labels, lines))
    facts = {
        "kind": "dataset",
        "count": len(labels),
        "shape": list(images.shape[1:]),
        "digest": digest_of(images, labels),
        **metadata,
    }
    tensors: dict[str, NDArray[Any]] = {"images": images, "labels": labels, "lines": lines}
    if groups is not None:
        tensors["groups"] = np.ascontiguousarray(groups)
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
        found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no dict
    images, labels = found["images"], found["labels"]
    if digest_of(images.numpy(), labels.numpy()) != facts["digest"]:
        raise file_facts.damaged(path)
    return Dataset(images, labels, facts, found["lines"], found.get("groups"))


def digest_of(images: NDArray[np.uint8], *more: NDArray[Any]) -> str:
    """sha256 of images and what belongs to them, such as labels."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    for array in (images, *more):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
