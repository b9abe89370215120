"""The validation of a CSV or folder: are its images as training needs them, and what should a reader know?"""

from collections.abc import Iterator, Mapping

import numpy as np

from cgan.base.errors import DataError
from cgan.base.report import Report
from cgan.base.settings import setting
from cgan.base.text import listed
from cgan.data.arrays import NUMBERING_ADVICE, IntArray, first_occurrences, image_digests
from cgan.data.images import SPLITS, Images
from cgan.data.spurious_correlations import notes_on, spurious_correlations
from cgan.params.sections import ValidateParams

FEW_IMAGES = 50  # fewer in a class are worth a warning; chosen by hand
MAX_SHOWN_CLASSES = 20


def validation(data: Images, params: ValidateParams, name: str) -> Report:
    """The report on valid images: counts, and as reasons the notes of `data` and what is odd. A test set of
    the source is only counted. Raises DataError for images that cannot be trained on."""
    test = SPLITS.index("test")
    split_sizes = np.bincount([] if data.splits is None else data.splits, minlength=len(SPLITS))
    if split_sizes.any() and not split_sizes[0]:
        raise DataError(f"{name}: expected images to train on, found val and test alone.")
    if split_sizes[test]:
        data = data.at(np.flatnonzero(data.splits != test))
    _check_counts(data, params, name)
    sentence = f"{name} is valid: {data.summary}"
    if split_sizes[1:].any():
        sentence += f"; {split_sizes[1]:,} are in val, {split_sizes[2]:,} more in test"
    return Report(
        question="Are the images as training needs them?",
        sentence=f"{sentence}.",
        reasons=[*data.notes, *notes_on_images(data, name)],
        facts={"splits": dict(zip(SPLITS, split_sizes.tolist(), strict=True))},
    )


def notes_on_images(data: Images, name: str) -> tuple[str, ...]:
    """Notes on what is odd in one or more images. Raises DataError where they are of another scale."""
    if data.pixels.max() <= 1:
        raise DataError(
            f"{name}: expected values from 0 to 255, found none above 1. Multiply pixels of 0 to 1 by 255."
        )
    firsts = first_occurrences(image_digests(data.pixels))
    return (*_odd_images(data, firsts), *notes_on(spurious_correlations(data, firsts)))


def _odd_images(data: Images, firsts: IntArray) -> Iterator[str]:
    """Notes on classes with few images, and on images that a reader should look at. `firsts`: for each image
    the first one equal to it."""
    order = data.counts.argsort(kind="stable")
    if few := {
        data.class_names[n]: int(data.counts[n]) for n in order if data.counts[n] < FEW_IMAGES
    }:
        yield (
            f"Few images: {describe_counts(few)}. With fewer than {FEW_IMAGES}, drawings of a class repeat a "
            "few forms, and some are copies of its images."
        )
    if data.classes < 2:
        yield f"One class: all images are of {data.class_names[0]}. A judge needs images of another, too."
    copies = np.flatnonzero(firsts != np.arange(len(firsts)))
    flat = data.pixels.reshape(len(data), -1)
    for title, rows, meaning in (
        ("Duplicates", copies, "All copies of an image stay on one side of the hold-out."),
        (
            "Conflicting labels",
            copies[data.labels[copies] != data.labels[firsts[copies]]],
            "These copies are of another class: correct the labels.",
        ),
        (
            "Constant images",
            np.flatnonzero(flat.min(axis=1) == flat.max(axis=1)),
            "All their pixels are equal.",
        ),
    ):
        places = [data.place(int(row)) for row in rows]
        if title != "Constant images":
            places = [f"{data.place(int(row))} is {data.place(int(firsts[row]))}" for row in rows]
        if places:
            yield f"{title}: {len(rows):,} ({listed(places)}). {meaning}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """`540 of cats, 54 of dogs`, from counts by class."""
    if len(counts) > 1 and len(set(counts.values())) == 1:
        return f"{max(counts.values()):,} of each of {len(counts)} classes"
    return listed([f"{count:,} of {name}" for name, count in counts.items()], MAX_SHOWN_CLASSES)


def _check_counts(data: Images, params: ValidateParams, name: str) -> None:
    """Raises DataError when a class has no image, or too few; with the notes, which say what was left out."""
    counts, names = data.counts, data.class_names
    present = np.flatnonzero(counts).tolist()
    missing = np.flatnonzero(counts == 0).tolist()
    few = {names[n]: int(counts[n]) for n in present if counts[n] < params.min_per_class}
    if len(present) < 2:
        problem = f"expected 2 classes or more, found {names[present[0]]} alone."
    elif missing:
        problem = (
            f"no image of class {listed(missing)}; {len(present):,} classes are found: {listed(present)}. "
            f"Add images, set {setting('validate.classes')}, or {NUMBERING_ADVICE}"
        )
    elif few:
        problem = (
            f"expected {params.min_per_class} images of each class or more, found {describe_counts(few)}. "
            f"Add images, lower {setting('validate.min_per_class')}, or remove the class."
        )
    else:
        return
    raise DataError("\n".join([f"{name}: {problem}", *data.notes]))
