"""The validation report: what the images of a valid CSV or folder are like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_reader import renumbering_advice
from cgan.data.dataset import SPLITS, LabelledImages, first_copies, image_digests
from cgan.errors import DataError, listed
from cgan.markdown import table
from cgan.params.sections import ValidateParams

FORMAT = 1
FEW = 50  # images of a class: warn
UNSCALED = 16  # the highest value of scikit-learn's digits
AT_ONCE = 1000  # images looked at
BINS = 32  # of brightness, in a profile


def report_on(found: LabelledImages, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report: plain JSON, a function of the data and `params` alone. What the source names a
    test set is only counted.

    Raises DataError for no training set: a class too small, a wrong scale.
    """
    kept = np.arange(len(found.labels))
    images, labels = found.images, found.labels
    if found.splits is not None:
        kept = np.flatnonzero(found.splits != SPLITS.index("test"))
        images, labels = images[kept], labels[kept]
    flat = images.reshape(len(images), -1)
    counts = np.bincount(labels, minlength=found.classes)
    _check_counts(counts, params, name, bool(found.files))
    darkest, brightest = flat.min(axis=1), flat.max(axis=1)
    top = int(brightest.max())
    if top <= 1:
        raise DataError(
            f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
            "to 0–1 (multiply them by 255), or all images are blank."
        )
    histogram = np.zeros(256, np.int64)
    for start in range(0, len(flat), AT_ONCE):
        histogram += np.bincount(flat[start : start + AT_ONCE].ravel(), minlength=256)
    values = np.arange(256)
    mean = float((histogram * values).sum() / histogram.sum())
    variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
    ink = images.sum(axis=(0, 1), dtype=np.int64)
    firsts = first_copies(image_digests(images))
    copies = np.flatnonzero(firsts != np.arange(len(firsts)))
    conflicts = copies[labels[copies] != labels[firsts[copies]]]
    constant = np.flatnonzero(darkest == brightest)
    report: dict[str, Any] = {
        "format": FORMAT,
        "csv": {"sha256": found.sha256, "bytes": found.size_bytes},
        "rows": len(labels),
        "classes": found.classes,
        "class_counts": counts.tolist(),
        "shape": dict(zip(("channels", "height", "width"), images.shape[1:], strict=True)),
        "duplicates": len(copies),
        "conflicting_labels": len(conflicts),
        "blank_images": int((brightest == 0).sum()),
        "constant_images": len(constant),
        "pixels": {
            "min": int(darkest.min()),
            "max": top,
            "mean": round(mean, 4),
            "std": round(math.sqrt(variance), 4),
        },
        "imbalance": round(float(counts.max() / counts.min()), 4),
        "profile": {  # what `distances` compares: sums over all images
            "brightness": histogram.reshape(BINS, -1).sum(axis=1).tolist(),
            "rows": ink.sum(axis=1).tolist(),
            "columns": ink.sum(axis=0).tolist(),
        },
        "params": params.model_dump(),
    }
    if found.splits is not None:
        in_each = np.bincount(found.splits, minlength=len(SPLITS)).tolist()
        report["splits"] = dict(zip(SPLITS, in_each, strict=True))

    def repeating(rows: NDArray[np.int64]) -> str:
        pairs = zip(kept[rows], kept[firsts[rows]], strict=True)
        return listed([f"{found.place(row)} is {found.place(first)}" for row, first in pairs])

    warnings = [
        *found.warnings,
        *_of_classes(counts, params),
        (top <= UNSCALED)
        * f"Dark: no value is above {top} of 255. Are they of another scale (0–16, as in "
        f"scikit-learn's digits)? Multiply them by {255 // top}.",
        bool(len(copies))
        * f"Duplicates: {len(copies):,} images repeat an earlier one ({repeating(copies)}); all copies of an "
        "image stay on one side of the hold-out.",
        bool(len(conflicts))
        * f"Conflicting labels: {len(conflicts):,} images repeat one of another class "
        f"({repeating(conflicts)}).",
        bool(len(constant))
        * f"Constant images: {len(constant):,} have one value everywhere, {report['blank_images']:,} are "
        f"blank ({listed([found.place(row) for row in kept[constant]])}).",
    ]
    return report | {"warnings": [text for text in warnings if text]}


def _of_classes(counts: NDArray[np.int64], params: ValidateParams) -> list[str]:
    names = params.class_names or range(len(counts))
    most, fewest = int(counts.argmax()), int(counts.argmin())
    times = float(counts[most] / counts[fewest])
    few = [f"class {names[n]} has {counts[n]:,}" for n in counts.argsort() if counts[n] < FEW]
    return [
        (times > params.max_imbalance)
        * f"Imbalance: class {names[most]} has {counts[most]:,} images, class {names[fewest]} has "
        f"{counts[fewest]:,}, {times:.1f} times fewer (`validate.max_imbalance`: {params.max_imbalance:g}). "
        "Rare classes will be drawn worse.",
        bool(few)
        * f"Few images: {listed(few)}. With fewer than {FEW} the drawings of a class repeat a few forms, and "
        "some copy. More images help more than any parameter.",
    ]


def _check_counts(
    counts: NDArray[np.int64], params: ValidateParams, name: str, pictures: bool
) -> None:
    """Raises DataError when a class has no image, or too few."""
    found, missing = np.flatnonzero(counts).tolist(), np.flatnonzero(counts == 0).tolist()
    few = [label for label in found if counts[label] < params.min_per_class]
    names = params.class_names or [str(label) for label in range(len(counts))]
    slip = (
        " If one of the labels is a slip, set `validate.classes` and validate again: its rows are named then."
    ) * (not params.classes and not pictures)
    if len(found) < 2:
        problem = (
            f"all labels are {[*names, *map(str, found)][found[0]]}. A conditional generator needs at least "
            "2 classes."
        )
    elif missing:
        declared = (
            f"`validate.classes` is {params.classes}: add images or, if there is no such class, set it to "
            f"{len(found)}. "
        ) * bool(params.classes)
        problem = (
            f"no image of class {listed(missing)}; the labels found are {listed(found)}. {declared}Labels "
            f"must count from 0 without a gap: {renumbering_advice(params)}{slip}"
        )
    elif len(names) != len(counts):
        problem = (
            f"{len(counts)} classes, with labels from 0 to {len(counts) - 1}, and `validate.class_names` has "
            f"{len(names)} names. Give one name a class, in the order of the labels."
        )
    elif few:
        shown = listed([f"class {names[label]} has {counts[label]:,}" for label in few])
        problem = (
            f"{len(few):,} of {len(found):,} classes have fewer than {params.min_per_class} images: {shown}. "
            f"Add images, or lower `validate.min_per_class` (to {counts[few].min()}; it cannot be below 2)."
            f"{slip}"
        )
    else:
        return
    raise DataError(f"{name}: {problem}")


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    shape, counts, pixels = report["shape"], report["class_counts"], report["pixels"]
    of_each = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
    splits = report.get("splits", {})
    lines = [
        f"{report['rows']:,} images of {shape['height']} × {shape['width']} pixels"
        f"{' in colour' * (shape['channels'] == 3)}, {report['classes']} classes with {of_each} images "
        "each",
        f"duplicates: {report['duplicates']:,}, constant images: {report['constant_images']:,}, "
        f"pixel mean {pixels['mean']:.1f} ± {pixels['std']:.1f}",
        *(f"val: {count:,} of these images" for count in [splits.get("val")] if count),
        *(f"test: {count:,} images more" for count in [splits.get("test")] if count),
        *(f"Warning: {warning}" for warning in report["warnings"]),
    ]
    return "\n".join(lines)


def to_markdown(report: dict[str, Any], name: str) -> str:
    """The report as a page for a reader."""
    title = name.replace("\n", " ").replace("`", "'")
    numbers = "rows classes duplicates conflicting_labels blank_images constant_images imbalance"
    facts = [(key.replace("_", " "), f"{report[key]:,}") for key in numbers.split()]
    facts += [
        (word, ", ".join(f"{part} {value}" for part, value in report[key].items()))
        for word, key in (("shape", "shape"), ("pixels", "pixels"), ("data", "csv"))
    ]
    counts = report["class_counts"]
    names = report["params"]["class_names"] or range(report["classes"])
    bars = [
        (name, f"{count:,}", "█" * max(1, round(20 * count / max(counts))))
        for name, count in zip(names, counts, strict=True)
    ]
    parts = [
        f"# Validation of `{title}`",
        table(("", ""), facts),
        "## Images per class",
        table(("class", "images", ""), bars, numbers=1),
        "## Warnings",
        "\n".join(f"- {text}" for text in report["warnings"] or ["none"]),
    ]
    return "\n\n".join(parts) + "\n"


def validated_params(report: Any, name: str) -> ValidateParams:
    """The params that a report's data was validated with: by them it is read alike again.

    Raises DataError for a report of another version.
    """
    try:
        return ValidateParams.model_validate(report["params"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{name}: not a report of this version. Make it again: `dvc repro --force validate`."
        ) from None
