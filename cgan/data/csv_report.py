"""The validation report: what a valid CSV is like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_faults import SHOWN, renumbering_advice
from cgan.data.csv_reader import CsvBlocks, Table
from cgan.data.dataset import first_copies, image_digests
from cgan.errors import DataError
from cgan.markdown import table
from cgan.params.sections import ValidateParams

FORMAT = 1
FEW = 50  # images of a class: warn
NOISE_ROUGHNESS = 0.8  # above it, a class is not made of pictures
BINS = 32  # of brightness, in a profile


def report_on_file(
    path: Path | str, params: ValidateParams, name: str, max_bytes: int | None = None
) -> dict[str, Any]:
    """As `report_on`. The CSV streams through: memory is about a hundred bytes an image."""
    return report_on(CsvBlocks(path, params, max_bytes=max_bytes, name=name), params, name)


def report_on(csv: CsvBlocks | Table, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report: plain JSON, a function of the CSV's bytes and `params` alone.

    Raises DataError for a CSV that is not valid, or no training set: a class too small, a wrong scale.
    """
    histogram = np.zeros(256, np.int64)
    ink = np.zeros(csv.shape[1:], np.int64)
    by_image: list[tuple[NDArray[Any], ...]] = []
    for labels, images in csv:
        flat = images.reshape(len(images), -1)
        histogram += np.bincount(flat.ravel(), minlength=256)
        ink += images.sum(axis=(0, 1), dtype=np.int64)
        extremes = flat.min(axis=1), flat.max(axis=1)
        by_image.append((labels, *extremes, _roughness(images), image_digests(images)))
    labels, darkest, brightest, roughness, digests = map(
        np.concatenate, zip(*by_image, strict=True)
    )
    classes = params.classes or int(labels.max()) + 1
    counts = np.bincount(labels, minlength=classes)
    _check_counts(counts, params, name)
    if brightest.max() <= 1:
        raise DataError(
            f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
            "to 0–1 (multiply them by 255), or all images are blank."
        )
    values = np.arange(256)
    mean = float((histogram * values).sum() / histogram.sum())
    variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
    firsts = first_copies(digests)
    rough = np.bincount(labels, roughness, minlength=classes) / counts
    report = {
        "format": FORMAT,
        "csv": {"sha256": csv.sha256, "bytes": csv.size_bytes},
        "rows": len(labels),
        "classes": classes,
        "class_counts": [int(count) for count in counts],
        "shape": dict(zip(("channels", "height", "width"), csv.shape, strict=True)),
        "duplicates": int((firsts != np.arange(len(firsts))).sum()),
        "conflicting_labels": int((labels != labels[firsts]).sum()),
        "blank_images": int((brightest == 0).sum()),
        "constant_images": int((darkest == brightest).sum()),
        "roughness": [round(float(value), 4) for value in rough],  # by class
        "pixels": {
            "min": int(darkest.min()),
            "max": int(brightest.max()),
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
    return report | {"warnings": [*csv.warnings, *_warnings(report)]}


def _warnings(report: dict[str, Any]) -> list[str]:
    """What does not stop a training."""
    counts, limit = np.array(report["class_counts"]), report["params"]["max_imbalance"]
    warnings = []
    if report["imbalance"] > limit:
        warnings.append(
            f"Imbalance: class {counts.argmax()} has {counts.max():,} images, class {counts.argmin()} "
            f"has {counts.min():,}, {report['imbalance']:.1f} times fewer (`validate.max_imbalance`: "
            f"{limit:g}). Rare classes will be drawn worse."
        )
    if counts.min() < FEW:
        warnings.append(
            f"Few images: class {counts.argmin()} has {counts.min():,}. With fewer than {FEW} the drawings "
            "of a class repeat a few forms, and some copy. More images help more than any parameter."
        )
    if copies := report["duplicates"]:
        warnings.append(
            f"Duplicates: {copies:,} images repeat an earlier one; all copies of an image stay on one "
            "side of the hold-out."
        )
    if conflicts := report["conflicting_labels"]:
        warnings.append(f"Conflicting labels: {conflicts:,} images repeat one of another class.")
    if constant := report["constant_images"]:
        warnings.append(
            f"Constant images: {constant:,} have one value everywhere ({report['blank_images']:,} blank)."
        )
    warnings += [
        f"Class {label}: neighbouring pixels have little to do with each other ({rough:.2f}; noise has 1, "
        "digits 0.3). Noise, or pixels in a wrong order?"
        for label, rough in enumerate(report["roughness"])
        if rough > NOISE_ROUGHNESS
    ]
    return warnings


def _roughness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How little neighbours tell of each other, by image: 1 for noise, towards 0 for smooth ones.

    Von Neumann's ratio (Ann. Math. Stat. 12, 1941), halved: the mean squared difference of neighbours by
    twice the variance. Of rows and columns the smoother, for a pattern may run along one of them.
    """
    values = images.astype(np.float32)
    across, down = (np.square(np.diff(values, axis=axis)).mean(axis=(1, 2, 3)) for axis in (3, 2))
    ratio: NDArray[np.float32] = np.minimum(across, down) / (
        2 * values.var(axis=(1, 2, 3)) + np.float32(1e-6)
    )
    return ratio


def _check_counts(counts: NDArray[np.int64], params: ValidateParams, name: str) -> None:
    """Raises DataError when a class has no image, or too few."""
    found, missing = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    if len(found) < 2:
        raise DataError(
            f"{name}: all labels are {found[0]}. A conditional generator needs at least 2 classes."
        )
    few = found[counts[found] < params.min_per_class]
    slip = (
        ""
        if params.classes
        else " If one of the labels is a slip, set `validate.classes` and validate again: its rows are "
        "named then."
    )
    if len(missing):
        set_to = (
            f"`validate.classes` is {params.classes}: add images or, if there is no such class, set it to "
            f"{len(found)}. "
            if params.classes
            else ""
        )
        raise DataError(
            f"{name}: no image of class {_some(missing)}; the labels found are {_some(found)}. {set_to}"
            f"Labels must count from 0 without a gap: {renumbering_advice(params)}{slip}"
        )
    if len(few):
        shown = _some([f"class {label} has {counts[label]:,}" for label in few])
        raise DataError(
            f"{name}: {len(few):,} of {len(found):,} classes have fewer than {params.min_per_class} images: "
            f"{shown}. Add images, or lower `validate.min_per_class` (to {counts[few].min()}; it cannot be "
            f"below 2).{slip}"
        )
    if params.class_names and len(params.class_names) != len(counts):
        raise DataError(
            f"{name}: {len(counts)} classes, with labels from 0 to {len(counts) - 1}, and "
            f"`validate.class_names` has {len(params.class_names)} names. Give one name a class, in the "
            "order of the labels."
        )


def _some(items: Sequence[object] | NDArray[Any]) -> str:
    return ", ".join(map(str, items[:SHOWN])) + ", …" * (len(items) > SHOWN)


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    shape = report["shape"]
    counts = report["class_counts"]
    lines = [
        f"{report['rows']:,} images of {shape['height']} × {shape['width']} pixels"
        f"{' in colour' * (shape['channels'] == 3)}, {report['classes']} classes with "
        f"{min(counts):,} to {max(counts):,} images each",
        f"duplicates: {report['duplicates']:,}, constant images: {report['constant_images']:,}, "
        f"pixel mean {report['pixels']['mean']:.1f} ± {report['pixels']['std']:.1f}",
    ]
    return "\n".join(lines + [f"Warning: {warning}" for warning in report["warnings"]])


def to_markdown(report: dict[str, Any], name: str) -> str:
    """The report as a page for a reader."""
    title = name.replace("\n", " ").replace("`", "'")
    numbers = "rows classes duplicates conflicting_labels blank_images constant_images imbalance"
    facts = [(key.replace("_", " "), f"{report[key]:,}") for key in numbers.split()]
    facts += [
        (key, ", ".join(f"{part} {value}" for part, value in report[key].items()))
        for key in ("shape", "pixels", "csv")
    ]
    most = max(report["class_counts"])
    names = report["params"]["class_names"] or range(report["classes"])
    bars = [
        (names[label], f"{count:,}", "█" * max(1, round(20 * count / most)))
        for label, count in enumerate(report["class_counts"])
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
    """The params that a report's CSV was validated with: by them it is read alike again.

    Raises DataError for a report of another version.
    """
    try:
        return ValidateParams.model_validate(report["params"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{name}: not a report of this version. Make it again: `dvc repro --force validate`."
        ) from None
