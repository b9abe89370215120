"""The validation report: counts, copies and warnings about the images of a valid CSV or folder."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cgan.errors import DataError
from cgan.images import SPLITS, Images, IntArray, first_copies, image_digests
from cgan.params.sections import ValidateParams
from cgan.readers.csv_reader import NUMBERING_ADVICE
from cgan.readers.spurious_correlations import notes_on, spurious_correlations
from cgan.settings import setting
from cgan.text import listed

FEW_IMAGES = 50  # fewer in a class are worth a warning; chosen by hand
MAX_SHOWN_CLASSES = 20


def report_on(data: Images, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report as plain JSON, a function of the data and `params` alone. If the source has a
    test set, that is only counted.

    Raises DataError for images that cannot be trained on: a class too small, a wrong scale.
    """
    test = SPLITS.index("test")
    split_sizes = np.bincount([] if data.splits is None else data.splits, minlength=len(SPLITS))
    if split_sizes.any() and not split_sizes[0]:
        raise DataError(f"{name}: expected images to train on, found val and test alone.")
    if split_sizes[test]:
        data = data.at(np.flatnonzero(data.splits != test))
    counts = data.counts
    group_sizes = np.unique([] if data.groups is None else data.groups, return_counts=True)[1]
    _check_counts(counts, params, name, data)
    if data.pixels.max() <= 1:
        raise DataError(
            f"{name}: expected values from 0 to 255, found none above 1. Multiply pixels that are scaled to "
            "0–1 by 255."
        )
    firsts = first_copies(image_digests(data.pixels))
    copies = np.flatnonzero(firsts != np.arange(len(firsts)))
    conflicts = copies[data.labels[copies] != data.labels[firsts[copies]]]
    flat = data.pixels.reshape(len(data), -1)
    constant = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
    correlations = spurious_correlations(data, firsts)
    return {
        "source_sha256": data.source_sha256,
        "rows": len(data),
        "classes": data.classes,
        "class_counts": counts.tolist(),
        "shape": dict(zip(("channels", "height", "width"), data.shape, strict=True)),
        "groups": len(group_sizes),
        "largest_group": int(group_sizes.max(initial=0)),
        "splits": dict(zip(SPLITS, split_sizes.tolist(), strict=True)),
        "duplicates": len(copies),
        "conflicting_labels": len(conflicts),
        "constant_images": len(constant),
        "warnings": [*data.notes, *_warnings(data, firsts, copies, conflicts, constant)],
        "spurious_correlations": [asdict(each) for each in correlations],
        "notes": notes_on(correlations),
    }


def _warnings(
    data: Images, firsts: IntArray, copies: IntArray, conflicts: IntArray, constant: IntArray
) -> list[str]:
    """`firsts`: for each image the first one equal to it. The others are rows of `data`."""
    warnings, names, counts = list[str](), data.class_names, data.counts
    order = counts.argsort(kind="stable")
    if few := {names[label]: int(counts[label]) for label in order if counts[label] < FEW_IMAGES}:
        warnings.append(
            f"Few images: {describe_counts(few)}. With fewer than {FEW_IMAGES}, drawings of a class repeat a "
            "few forms, and some are copies of its images."
        )
    of_copies = {
        "Duplicates": (copies, "All copies of an image stay on one side of the hold-out."),
        "Conflicting labels": (conflicts, "These copies are of another class: correct the labels."),
    }
    for title, (rows, advice) in of_copies.items():
        if len(rows):
            shown = listed([f"{data.place(row)} is {data.place(firsts[row])}" for row in rows])
            warnings.append(f"{title}: {len(rows):,} ({shown}). {advice}")
    if len(constant):
        shown = listed([data.place(row) for row in constant])
        warnings.append(
            f"Constant images: {len(constant):,} ({shown}). All their pixels are equal."
        )
    return warnings


def describe_counts(counts: Mapping[str, int]) -> str:
    """`540 of cats, 54 of dogs`, from counts by class."""
    if len(counts) > 1 and len(set(counts.values())) == 1:
        return f"{max(counts.values()):,} of each of {len(counts)} classes"
    return listed([f"{count:,} of {name}" for name, count in counts.items()], MAX_SHOWN_CLASSES)


def _check_counts(counts: IntArray, params: ValidateParams, name: str, data: Images) -> None:
    """Raises DataError when a class has no image, or too few. The message has the notes of `data`, too: they
    say what was left out."""
    present, missing = np.flatnonzero(counts).tolist(), np.flatnonzero(counts == 0).tolist()
    few = {data.class_names[n]: int(counts[n]) for n in present if counts[n] < params.min_per_class}
    if len(present) < 2:
        problem = f"expected 2 classes or more, found {data.class_names[present[0]]} alone."
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


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    shape, counts, splits = report["shape"], report["class_counts"], report["splits"]
    count_range = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
    colour = " in colour" if shape["channels"] == 3 else ""
    lines = [
        f"{report['rows']:,} images of {shape['width']} × {shape['height']} pixels{colour}, "
        f"{report['classes']} classes of {count_range} images"
    ]
    if report["groups"]:
        lines.append(f"{report['groups']:,} groups, the largest of {report['largest_group']:,}")
    if splits["val"] or splits["test"]:
        lines.append(f"{splits['val']:,} of these are in val; {splits['test']:,} more are in test")
    warnings = (f"Warning: {warning}" for warning in report["warnings"])
    return "\n".join([*lines, *warnings, *report["notes"]])
