"""`Images`: labelled images of one size, one type from the reader to the judge; and the file of them."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save_file

from cgan.base.errors import DataError
from cgan.base.files import replacing
from cgan.base.settings import python_call
from cgan.data import arrays
from cgan.data.arrays import IntArray
from cgan.models import file_facts

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "val", "test")
ONE_EACH = ("pixels", "labels", "groups", "splits", "lines", "sizes")  # arrays: an item per image


class Tensors(NamedTuple):
    """torch's view of `Images`: `pixels` uint8 [N, C, H, W], int64 `labels` [N] and `counts` [classes]."""

    pixels: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled images of one size.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 12), np.uint8)
    >>> images = cgan.Images(pixels, ["shoe", "bag"] * 20)
    >>> images
    Images(40 images of 12 × 8 pixels, 2 classes of 20 images)
    >>> images.class_names, images.counts.tolist()
    (['bag', 'shoe'], [20, 20])
    >>> train, held_out = images.split(0.2, seed=1)
    >>> len(train), len(held_out)
    (32, 8)
    >>> images.at([3, 7]).place(1)
    'image 7'

    They are made of numpy's or torch's arrays: `pixels` [N, H, W] in grey, in colour [N, H, W, 3] or [N, 3,
    H, W]; `labels` may be the names of the classes, `groups` texts. Where `class_names` are left out, they
    are the sorted names among the labels, or 0, 1, …. Raises DataError for arrays that do not fit, and for
    values that are missing. The fields:

    - `pixels` uint8 [N, C, H, W], with 1 or 3 channels (grey or RGB) and sides of 8 to 256;
    - `labels` int64 [N], from 0;
    - `class_names`: one a class, in the order of the labels;
    - `groups` int64 [N]: images of one group stay on one side of any split; None where nothing is known;
    - `notes`: what a reader should know. Where they are left out, the images are examined;
    - of images from a file: `splits` uint8 [N], index of SPLITS, None where the source names none; `lines`
      int64 [N], the line in the CSV (the header is line 1), the number of the picture, or the index; `files`,
      the names of pictures; `sizes` int64 [N, 2], width and height of each picture before it was fitted;
      `source_sha256` of the CSV's bytes, or of the pictures' arrays.
    """

    pixels: NDArray[np.uint8]
    labels: IntArray
    class_names: list[str]
    groups: IntArray | None
    splits: NDArray[np.uint8] | None
    lines: IntArray
    files: list[str]
    sizes: IntArray | None
    source_sha256: str
    notes: tuple[str, ...]

    @python_call
    def __init__(
        self,
        pixels: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor,
        class_names: Sequence[str] | None = None,
        groups: ArrayLike | torch.Tensor | None = None,
        *,
        splits: NDArray[np.uint8] | None = None,
        lines: IntArray | None = None,
        files: Sequence[str] = (),
        sizes: IntArray | None = None,
        source_sha256: str = "",
        notes: Sequence[str] | None = None,
    ) -> None:
        nchw = arrays.as_nchw(pixels)
        numbers, names = arrays.labels_and_names(labels, class_names, len(nchw))
        if groups is not None:
            groups = arrays.group_numbers(groups, len(nchw))
        self.__dict__.update(  # the class is frozen
            pixels=nchw,
            labels=numbers,
            class_names=names,
            groups=groups,
            splits=splits,
            lines=np.arange(len(nchw)) if lines is None else lines,
            files=[*files],
            sizes=sizes,
            source_sha256=source_sha256,
            notes=tuple(notes or ()),
        )
        if notes is None and len(nchw):
            from cgan.data.validation import notes_on_images

            self.__dict__["notes"] = notes_on_images(self, "pixels")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Images({self.summary})"

    def _repr_html_(self) -> str:
        from cgan.base.report import Report, Table
        from cgan.data.contact_sheet import contact_sheet

        counts = [*zip(self.class_names, self.counts.tolist(), strict=True)]
        png = io.BytesIO()
        if len(self):
            sheet = contact_sheet(self.pixels, self.labels, self.class_names, seed=0)
            sheet.save(png, format="PNG")
        return Report(
            question="What are these images?",
            sentence=repr(self),
            reasons=self.notes,
            tables=[Table("", ("class", "images"), counts)],
            pictures={"images of each class": png.getvalue()} if len(self) else {},
        ).as_html()

    @property
    def summary(self) -> str:
        """`56 images of 12 × 8 pixels in colour, 3 classes of 12 to 24 images`, and so on."""
        channels, height, width = self.shape
        extremes = sorted({int(self.counts.min()), int(self.counts.max())})
        parts = [
            f"{len(self):,} images of {width} × {height} pixels{' in colour' * (channels == 3)}",
            f"{self.classes} classes of {' to '.join(f'{count:,}' for count in extremes)} images",
        ]
        if self.groups is not None and len(self):
            sizes = np.unique(self.groups, return_counts=True)[1]
            parts.append(f"{len(sizes):,} groups, the largest of {sizes.max():,}")
        return ", ".join(parts)

    @property
    def classes(self) -> int:
        """The number of classes; some may have no image here."""
        return len(self.class_names)

    @property
    def is_named(self) -> bool:
        """True where the classes have names other than 0, 1, …."""
        return self.class_names != arrays.default_names(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def counts(self) -> IntArray:
        """Images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=self.classes)

    @property
    def classes_without_images(self) -> list[str]:
        """The names of classes that have no image here."""
        return [self.class_names[label] for label in np.flatnonzero(self.counts == 0)]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of pixels and labels."""
        return arrays.pixels_digest(self.pixels, self.labels)

    @functools.cached_property
    def tensors(self) -> Tensors:
        """torch's view of the same memory."""
        import torch

        return Tensors(*map(torch.from_numpy, (self.pixels, self.labels, self.counts)))

    @python_call
    def split(self, fraction: float = 0.1, seed: int = 1) -> tuple[Images, Images]:
        """The images to train on, and those held out: of each class `fraction`, at least one.

        Copies of an image, and all images of a group, are on one side; equal arguments divide alike, as the
        stage preprocess does. Where the source names a part `val`, that is held out; its part `test` is in
        neither. Those held out have notes on what came of it. Raises DataError where a class has too few
        distinct images, or fewer than six images are held out.
        """
        from cgan.data.splitting import split_images

        train, held_out, _ = split_images(self, fraction, seed)
        return train, held_out

    def at(self, rows: ArrayLike | torch.Tensor | slice) -> Images:
        """Some of the images: by their indices, or bool [N]."""
        # numpy takes an empty list; as an array it would be one of floats.
        index: Any = rows if isinstance(rows, slice | list) else np.asarray(rows)
        chosen = np.arange(len(self))[index]
        changes: dict[str, Any] = {"files": [self.files[row] for row in chosen if self.files]}
        for name in ONE_EACH:
            array = getattr(self, name)
            changes[name] = None if array is None else array[chosen]
        return replace(self, **changes)

    def place(self, row: int) -> str:
        """Where to find an image, for messages: its file, or its number among the lines or the arrays."""
        if self.files:
            return self.files[row]
        return f"{'line' if self.source_sha256 else 'image'} {self.lines[row]}"


def joined(*parts: Images) -> Images:
    """The images of all parts, which have the same classes, with what is known of all. Raises DataError where
    some alone have groups."""
    changes: dict[str, Any] = {"files": [file for part in parts for file in part.files]}
    for name in ONE_EACH:
        each = [getattr(part, name) for part in parts]
        known = [array for array in each if array is not None]
        if name == "groups" and 0 < len(known) < len(parts):
            raise DataError("groups: some images have them, others not. Give all, or none.")
        changes[name] = np.concatenate(known) if len(known) == len(parts) else None
    return replace(parts[0], **changes)


def save_images(path: Path | str, images: Images, **facts: Any) -> None:
    """Write all but the files' names, atomically; equal images and `facts`, plain JSON, give equal bytes."""
    facts |= {"kind": "dataset", "count": len(images), "shape": images.shape}
    facts |= {"digest": images.digest, "classes": images.classes}
    facts |= {"csv_sha256": images.source_sha256}
    if images.is_named:
        facts["class_names"] = images.class_names
    if images.notes:
        facts["notes"] = images.notes
    known = {name: getattr(images, name) for name in ONE_EACH}
    stored = {name: np.ascontiguousarray(a) for name, a in known.items() if a is not None}
    stored["images"] = stored.pop("pixels")
    with replacing(path) as temporary:
        save_file(stored, temporary, file_facts.facts_metadata(facts))


def load_images(path: Path | str) -> Images:
    """Read and check a file of `save_images`. Raises as `cgan.models.file_facts.open_tensors` does."""
    path = Path(path)
    with file_facts.open_tensors(path, "dataset", "np") as (file, facts):
        # As copies: pages of the file would count as memory of ours, and change with it.
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    try:
        images = Images(
            stored.pop("images"),
            stored.pop("labels"),
            facts.get("class_names") or arrays.default_names(facts["classes"]),
            **stored,
            source_sha256=facts.get("csv_sha256", ""),
            notes=facts.get("notes", ()),
        )
    except (DataError, KeyError, TypeError):
        raise file_facts.damage_error(path) from None
    if images.digest != facts["digest"]:
        raise file_facts.damage_error(path)
    return images
