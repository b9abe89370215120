"""Labelled images: one type from the reader to the judge, and the file in which stages keep it."""

from __future__ import annotations

import functools
import hashlib
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
from cgan.base.settings import as_keywords
from cgan.base.text import listed
from cgan.models import file_facts

if TYPE_CHECKING:
    import torch

MIN_SIDE = 8  # pixels
MAX_SIDE = 256
MAX_CLASSES = 1000
SPLITS = ("train", "val", "test")
CHANNELS = (1, 3)
ONE_EACH = ("pixels", "labels", "groups", "splits", "lines", "sizes")  # arrays: an item per image
# The lowest and the highest pixel of other scales, and what makes 0 to 255 of them.
OTHER_SCALES = ((0, 1, "(pixels * 255)"), (-1, 1, "((pixels + 1) * 127.5)"), (0, 255, "pixels"))

NUMBER_THEM = (
    "Number the classes in order: `names, labels = numpy.unique(labels, return_inverse=True)`."
)
IntArray = NDArray[np.int64]


class Tensors(NamedTuple):
    """torch's view of an `Images`, on the CPU: `pixels` uint8 [N, C, H, W], `labels` int64 [N] and `counts`
    int64 [classes]."""

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

    The fields:

    - `pixels` uint8 [N, C, H, W], with 1 or 3 channels (grey or RGB) and sides of 8 to 256;
    - `labels` int64 [N], from 0;
    - `class_names`: one a class, in the order of the labels;
    - `groups` int64 [N]: images of one group stay on one side of any split, as photographs of one thing
      should; None where nothing is known.

    They are made of numpy's or torch's arrays: `pixels` [N, H, W] in grey, in colour [N, H, W, 3] or [N, 3,
    H, W]; `labels` may be the names of the classes, `groups` texts. Where `class_names` are left out, they
    are the sorted names among the labels, or 0, 1, …. `notes` say what is odd. Raises DataError for arrays
    that do not fit, and for values that are missing.

    Images from a file have more fields:

    - `splits` uint8 [N]: index of SPLITS; None where the source names none;
    - `lines` int64 [N]: the line in the CSV (the header is line 1), the number of the picture, or the index;
    - `files`: the name of each picture; empty where there are none;
    - `sizes` int64 [N, 2]: width and height of each picture, before it was fitted; None where unknown;
    - `source_sha256`: of the CSV's bytes, or of the pictures' arrays; else "";
    - `notes`: what a reader should know of these images. Where they are left out, the images are examined.
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

    @as_keywords()
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
        nchw = _as_nchw(_as_numpy(pixels))
        numbers, names = _labels_and_names(_one_each(labels, "labels", len(nchw)), class_names)
        if groups is not None:
            groups = _group_numbers(_one_each(groups, "groups", len(nchw)))
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
        """Counts, images of each class, and the notes, as HTML for a notebook."""
        from cgan.base.report import Report, Table
        from cgan.data.contact_sheet import contact_sheet

        counts = [*zip(self.class_names, self.counts.tolist(), strict=True)]
        png = io.BytesIO()
        if len(self):
            contact_sheet(self, seed=0).save(png, format="PNG")
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
        return self.class_names != _default_names(self.classes)

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
        return pixels_digest(self.pixels, self.labels)

    @functools.cached_property
    def tensors(self) -> Tensors:
        """torch's view of the same memory."""
        import torch

        return Tensors(*map(torch.from_numpy, (self.pixels, self.labels, self.counts)))

    @as_keywords()
    def split(self, fraction: float = 0.1, seed: int = 1) -> tuple[Images, Images]:
        """The images to train on, and those held out: of each class `fraction`, at least one.

        Copies of an image, and all images of a group, are on one side; equal arguments divide alike. Where
        the source names a part `val`, that is held out; its part `test` is in neither. Those to train on keep
        the `notes`, those held out have notes on what came of it. The stage preprocess divides alike.

        Raises DataError where a class has too few distinct images, or fewer than six images are held out.
        """
        from cgan.data.splitting import split_images

        train, held_out, _ = split_images(self, fraction, seed)
        return train, held_out

    def at(self, rows: ArrayLike | torch.Tensor | slice) -> Images:
        """Some of the images: by their indices, or bool [N]."""
        index: Any = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(index, slice) and not index.size:
            index = slice(0)  # an empty list becomes an array of floats, which is no index
        chosen = np.arange(len(self))[index]
        changes: dict[str, Any] = {"files": [self.files[row] for row in chosen if self.files]}
        for name in ONE_EACH:
            array = getattr(self, name)
            changes[name] = None if array is None else array[chosen]
        return replace(self, **changes)

    def place(self, row: int) -> str:
        """Where to find an image, in words for messages: its file; its line in the CSV; or, where images were
        given as arrays, its index in them."""
        if self.files:
            return self.files[row]
        return f"{'line' if self.source_sha256 else 'image'} {self.lines[row]}"


def joined(*parts: Images) -> Images:
    """The images of all parts, which have the same classes, with what is known of all. Raises DataError where
    some alone have groups."""
    changes: dict[str, Any] = {"files": [file for part in parts for file in part.files]}
    for name in ONE_EACH:
        arrays = [getattr(part, name) for part in parts]
        known = [array for array in arrays if array is not None]
        if name == "groups" and 0 < len(known) < len(parts):
            raise DataError(
                "groups: some sets of images have them and others not. Give all, or none."
            )
        changes[name] = np.concatenate(known) if len(known) == len(parts) else None
    return replace(parts[0], **changes)


def _default_names(count: int) -> list[str]:
    """The names of classes that have none."""
    return [str(label) for label in range(count)]


def _as_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):  # torch's, on any device
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _require_values(array: NDArray[Any], name: str) -> None:
    """Raises DataError where values are missing, with how many, and of which images."""
    if array.dtype.kind not in "fO":
        return
    import pandas as pd

    is_missing = pd.isna(array).reshape(len(array), -1)
    if rows := np.flatnonzero(is_missing.any(axis=1)).tolist():
        raise DataError(
            f"{name}: expected a value everywhere, found {is_missing.sum():,} of {array.size:,} to be NaN or "
            f"None, in image {listed(rows)} (counted from 0). Leave these images out, or fill them."
        )


def _one_each(values: Any, name: str, count: int) -> NDArray[Any]:
    """The array of `values`, of which each of `count` images has one."""
    array = _as_numpy(values)
    if array.shape != (count,):
        raise DataError(f"{name}: expected [{count}], one an image; found {[*array.shape]}.")
    return array


def _as_nchw(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W], contiguous and writable, as torch wants it."""
    shape = pixels.shape
    if len(shape) == 3:
        pixels = pixels[:, None]
    elif len(shape) == 4 and shape[1] not in CHANNELS:
        pixels = pixels.transpose(0, 3, 1, 2)
    has_channels = pixels.ndim == 4 and pixels.shape[1] in CHANNELS
    if not has_channels or not all(MIN_SIDE <= side <= MAX_SIDE for side in pixels.shape[2:]):
        raise DataError(
            f"pixels: expected [N, H, W], [N, H, W, 3] or [N, 3, H, W] with sides of {MIN_SIDE} to "
            f"{MAX_SIDE}; found {[*shape]}. Rows of pixels become images by `reshape(-1, height, width)`."
        )
    _require_values(pixels, "pixels")
    if pixels.dtype != np.uint8 and pixels.size:
        _require_bytes(pixels)
    return np.require(pixels, np.uint8, ["C", "W"])


def _require_bytes(pixels: NDArray[Any]) -> None:
    """Raises DataError for other values than whole numbers from 0 to 255, with what makes them of these."""
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"pixels: expected whole numbers from 0 to 255, found {pixels.dtype}.")
    lowest, highest = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "iu" and lowest >= 0 and highest <= 255:
        return
    advice = "Scale them to 0 to 255."
    for low, high, formula in OTHER_SCALES:
        if low <= lowest and highest <= high:
            advice = f'Make them by `{formula}.round().astype("uint8")`.'
            break
    raise DataError(
        f"pixels: expected whole numbers from 0 to 255, found {pixels.dtype} from {lowest:g} to {highest:g}. "
        f"{advice}"
    )


def _labels_and_names(
    labels: NDArray[Any], class_names: Sequence[str] | None
) -> tuple[IntArray, list[str]]:
    """Labels as int64 [N], and the name of each class."""
    names = None if class_names is None else [str(name) for name in class_names]
    if names and len({*names}) < len(names):
        raise DataError(f"class_names: expected different ones, found {listed(names)}.")
    if names is None and not labels.size:
        raise DataError("labels: expected those of images, found none.")
    _require_values(labels, "labels")
    if labels.dtype.kind in "UO" and all(isinstance(label, str) for label in labels):
        found = sorted({*labels.tolist()})
        if names is None:
            names = sorted(found, key=int) if all(map(str.isdecimal, found)) else found
        elif unknown := [name for name in found if name not in names]:
            raise DataError(
                f"labels: expected the class_names, {listed(names)}; found {listed(unknown)}."
            )
        label_of = {name: label for label, name in enumerate(names)}
        return np.array([label_of[name] for name in labels], np.int64), names
    if labels.dtype.kind not in "iu" and labels.size:
        advice = ""
        if labels.dtype.kind == "f" and (labels == labels.round()).all():
            advice = " Convert them by `labels.astype(int)`."
        raise DataError(
            f"labels: expected integers from 0, or the classes' names; found {labels.dtype}.{advice}"
        )
    lowest, highest = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    max_label = (MAX_CLASSES if names is None else len(names)) - 1
    if lowest < 0 or highest > max_label:
        raise DataError(
            f"labels: expected integers from 0 to {max_label}; found {lowest} to {highest}. {NUMBER_THEM}"
        )
    if names is None:
        names = _default_names(highest + 1)
        if missing := sorted({*range(highest + 1)} - {*np.unique(labels).tolist()}):
            raise DataError(
                f"labels: expected each from 0 to {highest}; no image is of class {listed(missing)}. "
                f"{NUMBER_THEM} Or give `class_names`, one for each, and images of these classes."
            )
    return np.require(labels, np.int64, ["C", "W"]), names


def _group_numbers(groups: NDArray[Any]) -> IntArray:
    """A number for the group of each image, int64 [N]. One without (blank, None or NaN) is a group of its
    own."""
    if groups.dtype.kind in "iu":
        return groups.astype(np.int64, copy=False)
    keys = list[str]()
    for row, group in enumerate(groups.tolist()):
        is_known = group not in (None, "") and group == group  # NaN differs from itself
        keys.append(str(group) if is_known else f"\0{row}")  # \0: a key that no group has
    return np.unique(keys, return_inverse=True)[1]


# --- Digests, copies, and the file of images -------------------------------------------------------


def pixels_digest(pixels: NDArray[Any], *more: NDArray[Any]) -> str:
    """sha256 of images and what belongs to them, such as labels."""
    digest = hashlib.sha256(f"{pixels.shape}".encode())
    for array in (pixels, *more):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def image_digests(pixels: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """A digest of 16 bytes for each image, [N]: equal for equal images."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels)
    return np.fromiter(digests, "S16", len(pixels))


def first_copies(values: NDArray[Any]) -> IntArray:
    """The index of the first value equal to each, such as to an image's digest; int64 [N]."""
    _, firsts, index_of_unique = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(firsts[index_of_unique])


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
    arrays = {name: np.ascontiguousarray(a) for name, a in known.items() if a is not None}
    arrays["images"] = arrays.pop("pixels")
    with replacing(path) as temporary:
        save_file(arrays, temporary, file_facts.facts_metadata(facts))


def load_images(path: Path | str) -> Images:
    """Read and check a file of `save_images`. Raises as `cgan.models.file_facts.open_tensors` does."""
    path = Path(path)
    with file_facts.open_tensors(path, "dataset", "np") as (file, facts):
        # As copies: pages of the file would count as memory of ours, and change with it.
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    try:
        images = Images(
            arrays.pop("images"),
            arrays.pop("labels"),
            facts.get("class_names") or _default_names(facts["classes"]),
            **arrays,
            source_sha256=facts.get("csv_sha256", ""),
            notes=facts.get("notes", ()),
        )
    except (DataError, KeyError, TypeError):
        raise file_facts.damage_error(path) from None
    if images.digest != facts["digest"]:
        raise file_facts.damage_error(path)
    return images
