"""The validation report: counts, copies and warnings about the images of a valid CSV or folder."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cgan.errors import DataError
from cgan.images import SPLITS, Images, IntArray, first_copies, image_digests
from cgan.params.sections import ValidateParams
from cgan.readers.csv_reader import renumbering_advice
from cgan.readers.spurious_correlations import notes_on, spurious_correlations
from cgan.settings import setting
from cgan.text import listed

FEW_IMAGES = 50  # fewer in a class are worth a warning; chosen by hand
MAX_UNSCALED = 16  # the highest value of scikit-learn's digits
MAX_SHOWN_CLASSES = 20


def report_on(data: Images, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report as plain JSON, a function of the data and `params` alone. If the source has a
    test set, that is only counted.

    Raises DataError for images that cannot be trained on: a class too small, a wrong scale.
    """
    test = SPLITS.index("test")
    split_sizes = np.bincount([] if data.splits is None else data.splits, minlength=len(SPLITS))
    if split_sizes.any() and not split_sizes[0]:
        raise DataError(
            f"{name}: all images are in val or test, expected some to train on. Put those into train/ beside "
            "it. If all of these are to train on, give the folder val or test itself, or rename it."
        )
    if split_sizes[test]:
        data = data.at(np.flatnonzero(data.splits != test))
    counts = data.counts
    group_sizes = np.unique([] if data.groups is None else data.groups, return_counts=True)[1]
    _check_counts(counts, params, name, data)
    if data.pixels.max() <= 1:
        raise DataError(
            f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
            "to 0–1 (multiply them by 255), 8 bits in files of 16 (save them as 8), or all images are blank."
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
        "warnings": [
            *data.notes,
            *_warnings_of_classes(data, params),
            *_warnings_of_images(data, firsts, copies, conflicts, constant),
        ],
        "spurious_correlations": [asdict(each) for each in correlations],
        "notes": notes_on(correlations),
    }


def _warnings_of_classes(data: Images, params: ValidateParams) -> list[str]:
    names, counts, warnings = data.class_names, data.counts, list[str]()
    if alike := _look_alike(names):
        warnings.append(
            f"Names that look alike: {listed(alike)}. If they are one class, give it one name."
        )
    most, fewest = int(counts.argmax()), int(counts.argmin())
    ratio = float(counts[most] / counts[fewest])
    if ratio > params.max_imbalance:
        extremes = describe_counts({names[label]: int(counts[label]) for label in (most, fewest)})
        limit = setting("validate.max_imbalance", f"{params.max_imbalance:g}")
        warnings.append(
            f"Imbalance: {extremes}, {ratio:.3g} times fewer ({limit}). Rare classes are drawn less well."
        )
    order = counts.argsort(kind="stable")
    if few := {names[label]: int(counts[label]) for label in order if counts[label] < FEW_IMAGES}:
        warnings.append(
            f"Few images: {describe_counts(few)}. With fewer than {FEW_IMAGES}, the drawings of a class "
            "repeat a few forms, and some are copies of its images: compare them on the run's page before "
            "you use them. More images help more than any parameter."
        )
    return warnings


def _warnings_of_images(
    data: Images, firsts: IntArray, copies: IntArray, conflicts: IntArray, constant: IntArray
) -> list[str]:
    """`firsts`: for each image the first one equal to it. `copies`, `conflicts` and `constant` are rows of
    `data`."""

    def describe_copies(rows: IntArray) -> str:
        return listed([f"{data.place(row)} is {data.place(firsts[row])}" for row in rows])

    brightest, warnings = int(data.pixels.max()), list[str]()
    if brightest <= MAX_UNSCALED:
        warnings.append(
            f"Dark: no value is above {brightest} of 255. Do they have another scale (0–16, as in "
            "scikit-learn's digits; 12 of 16 bits)? Multiply by "
            f"{255 // (brightest + bool(data.files))}."
        )
    if len(copies):
        warnings.append(
            f"Duplicates: {len(copies):,} ({describe_copies(copies)}). All copies of an image stay on one "
            "side of the hold-out."
        )
    if len(conflicts):
        warnings.append(
            f"Conflicting labels: {len(conflicts):,} of these copies are of another class "
            f"({describe_copies(conflicts)}). Correct the labels, or remove the images."
        )
    if len(constant):
        places = listed([data.place(row) for row in constant])
        warnings.append(
            f"Constant images: {len(constant):,}, blank ones too ({places}). All their pixels are equal, so "
            "they show nothing."
        )
    return warnings


def _look_alike(names: Sequence[str]) -> list[str]:
    """`'Cat' and 'cat'`: names that differ in capitals, in leading zeros, or in how letters are composed."""
    alike = dict[str, list[str]]()
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        without_zeros = re.sub(r"\b0+(?=\d)", "", plain)
        alike.setdefault(without_zeros, []).append(name)
    is_composed = all(name == unicodedata.normalize("NFC", name) for name in names)
    show = repr if is_composed else ascii
    return [" and ".join(map(show, same)) for same in alike.values() if len(same) > 1]


def describe_counts(counts: Mapping[str, int]) -> str:
    """`540 of cats, 54 of dogs`, from counts by class."""
    if len(counts) > 1 and len(set(counts.values())) == 1:
        return f"{max(counts.values()):,} of each of {len(counts)} classes"
    return listed([f"{count:,} of {name}" for name, count in counts.items()], MAX_SHOWN_CLASSES)


def _check_counts(counts: IntArray, params: ValidateParams, name: str, data: Images) -> None:
    """Raises DataError when a class has no image, or too few. The message has the notes of `data`, too: they
    say what was left out."""
    present, missing = np.flatnonzero(counts).tolist(), np.flatnonzero(counts == 0).tolist()
    few = [label for label in present if counts[label] < params.min_per_class]
    declared = f" ({setting('validate.classes')} is {params.classes})" if params.classes else ""
    if len(present) < 2:
        problem = f"all labels are {data.class_names[present[0]]}; expected at least 2 classes."
        if data.files:
            problem += " Give each class a folder of its own, or list all in a CSV `path,label`."
    elif missing:
        problem = (
            f"no image of class {listed(missing)}{declared}; {len(present):,} are found: {listed(present)}. "
            f"Add images; or, as labels must count from 0 without a gap, {renumbering_advice(params)}"
        )
    elif few:
        shown = listed([f"class {data.class_names[label]} has {counts[label]:,}" for label in few])
        problem = (
            f"{len(few):,} of {len(present):,} classes have fewer than {params.min_per_class} images: "
            f"{shown}. Add images, lower {setting('validate.min_per_class')} (to "
            f"{max(2, counts[few].min())}), or remove the class."
        )
    else:
        return
    if len(present) > 1 and not params.classes and not data.files:
        problem += (
            f" Is a label a mistake? Set {setting('validate.classes')}, and its rows are named."
        )
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
        lines.append(
            f"In {report['groups']:,} groups, the largest of {report['largest_group']:,}: all images of a "
            "group stay on one side of the hold-out"
        )
    if splits["val"]:
        lines.append(f"{splits['val']:,} of these are held out: they are in val")
    if splits["test"]:
        lines.append(f"{splits['test']:,} more are in test")
    warnings = (f"Warning: {warning}" for warning in report["warnings"])
    return "\n".join([*lines, *warnings, *report["notes"]])
