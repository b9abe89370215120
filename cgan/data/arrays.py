"""Arrays of images: those that users give, checked and made of one form; digests, and equal ones found."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.base.errors import DataError
from cgan.base.text import listed

MIN_SIDE, MAX_SIDE = 8, 256  # pixels
MAX_CLASSES = 1000
CHANNELS = (1, 3)
# The lowest and the highest pixel of other scales, and what makes 0 to 255 of them.
CONVERSIONS = ((0, 1, "(pixels * 255)"), (-1, 1, "((pixels + 1) * 127.5)"), (0, 255, "pixels"))
NUMBERING_ADVICE = (
    "number the classes from 0, `names, labels = numpy.unique(labels, return_inverse=True)`, and give the "
    "names as `class_names`."
)
IntArray = NDArray[np.int64]


def default_names(count: int) -> list[str]:
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


def as_nchw(values: Any) -> NDArray[np.uint8]:
    """Pixels as uint8 [N, C, H, W], contiguous and writable, as torch wants them."""
    pixels = _as_numpy(values)
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
    """Raises DataError unless they are of an integer type and within 0 to 255; the message proposes how."""
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"pixels: expected integers from 0 to 255, found {pixels.dtype}.")
    lowest, highest = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "iu" and lowest >= 0 and highest <= 255:
        return
    advice = "Scale them to 0 to 255."
    for low, high, formula in CONVERSIONS:
        if low <= lowest and highest <= high:
            advice = f'Make them by `{formula}.round().astype("uint8")`.'
            break
    raise DataError(
        f"pixels: expected integers from 0 to 255, found {pixels.dtype} from {lowest:g} to {highest:g}. "
        f"{advice}"
    )


def labels_and_names(
    values: Any, class_names: Sequence[str] | None, count: int
) -> tuple[IntArray, list[str]]:
    """Labels of `count` images as int64 [count], and the name of each class."""
    labels = _one_each(values, "labels", count)
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
        raise DataError(f"labels: expected whole numbers or names, found {labels.dtype}.")
    lowest, highest = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    max_label = (MAX_CLASSES if names is None else len(names)) - 1
    if lowest < 0 or highest > max_label:
        raise DataError(
            f"labels: expected from 0 to {max_label}; found {lowest} to {highest}; {NUMBERING_ADVICE}"
        )
    if names is None:
        names = default_names(highest + 1)
        if missing := sorted({*range(highest + 1)} - {*np.unique(labels).tolist()}):
            raise DataError(
                f"labels: expected each from 0 to {highest}; no image is of class {listed(missing)}. Add "
                f"images of it, or {NUMBERING_ADVICE}"
            )
    return np.require(labels, np.int64, ["C", "W"]), names


def group_numbers(values: Any, count: int) -> IntArray:
    """The groups of `count` images as int64 [count]. One without (blank, None, NaN) is of its own."""
    groups = _one_each(values, "groups", count)
    if groups.dtype.kind in "iu":
        return groups.astype(np.int64, copy=False)
    keys = list[str]()
    for row, group in enumerate(groups.tolist()):
        is_known = group not in (None, "") and group == group  # NaN differs from itself
        keys.append(str(group) if is_known else f"\0{row}")  # \0: a key that no group has
    return np.unique(keys, return_inverse=True)[1]


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


def first_occurrences(values: NDArray[Any]) -> IntArray:
    """For each value, such as an image's digest, the index of its first occurrence; int64 [N]."""
    _, firsts, index_of_unique = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(firsts[index_of_unique])
