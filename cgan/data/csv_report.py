"""The validation report: what a valid CSV is like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_faults import SHOWN, renumbering_advice
from cgan.data.csv_reader import CsvBlocks, Table
from cgan.data.dataset import first_copies, image_digests
from cgan.errors import DataError
from cgan.markdown import in_markdown
from cgan.params.sections import ValidateParams

FORMAT = 1
FEW = 50  # images of a class: warn
NOISE_ROUGHNESS = 0.8  # above it, a class is not made of pictures
BLOCK_VALUES = 100_000  # pixels that are looked at at once: they stay in the cache
BINS = 32  # of brightness, in a profile


def report_on_file(
    path: Path | str, params: ValidateParams, name: str, max_bytes: int | None = None
) -> dict[str, Any]:
    """The validation report: plain JSON, a function of the CSV's bytes and `params` alone.

    The CSV streams through: memory is about a hundred bytes an image. Raises DataError for a CSV that is
    not valid, or no training set: a class too small, a wrong scale.
    """
    blocks = CsvBlocks(path, params, max_bytes=max_bytes, name=name)
    tally = _Tally(blocks.shape)
    for labels, images in blocks:
        tally.add(labels, images)
    return tally.report(blocks, params, name)


def report_on(table: Table, params: ValidateParams, name: str) -> dict[str, Any]:
    """The same of a CSV that has been read."""
    tally = _Tally(table.images.shape[1:])
    step = max(1, BLOCK_VALUES // table.images[0].size)
    for start in range(0, len(table.images), step):
        part = slice(start, start + step)
        tally.add(table.labels[part], table.images[part])
    return tally.report(table, params, name)


class _Tally:
    """What is counted of the images, block by block."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: (C, H, W)."""
        self.shape = shape
        self.histogram = np.zeros(256, np.int64)
        self.ink = np.zeros(shape[1:], np.int64)
        # Labels, darkest and brightest pixel, roughness, digests.
        self.by_image: list[list[NDArray[Any]]] = [[] for _ in range(5)]

    def add(self, labels: NDArray[Any], images: NDArray[np.uint8]) -> None:
        flat = images.reshape(len(images), -1)
        self.histogram += np.bincount(flat.ravel(), minlength=256)
        self.ink += images.sum(axis=(0, 1), dtype=np.int64)
        facts = (labels, flat.min(axis=1), flat.max(axis=1), _roughness(images))
        for kept, values in zip(self.by_image, (*facts, image_digests(images)), strict=True):
            kept.append(values)

    def report(self, csv: CsvBlocks | Table, params: ValidateParams, name: str) -> dict[str, Any]:
        """On all that was added, which is all of `csv`."""
        labels, darkest, brightest, roughness, digests = (
            np.concatenate(parts) for parts in self.by_image
        )
        classes = params.classes or int(labels.max()) + 1
        counts = np.bincount(labels, minlength=classes)
        _check_counts(counts, params, name)
        named = _named(classes, params, name)
        if brightest.max() <= 1:
            raise DataError(
                f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
                "to 0–1 (multiply them by 255), or all images are blank."
            )
        histogram, ink = self.histogram, self.ink
        values = np.arange(256)
        mean = float((histogram * values).sum() / histogram.sum())
        variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
        firsts = first_copies(digests)
        copies = int((firsts != np.arange(len(firsts))).sum())
        conflicts = int((labels != labels[firsts]).sum())
        constant = int((darkest == brightest).sum())
        blank = int((brightest == 0).sum())
        rough = np.bincount(labels, roughness, minlength=classes) / counts
        warnings = _warnings(counts, copies, conflicts, constant, blank, rough, params)
        return {
            "format": FORMAT,
            "csv": {"sha256": csv.sha256, "bytes": csv.size_bytes},
            "rows": len(labels),
            "classes": classes,
            **named,
            "class_counts": [int(count) for count in counts],
            "shape": dict(zip(("channels", "height", "width"), self.shape, strict=True)),
            "duplicates": copies,
            "conflicting_labels": conflicts,
            "blank_images": blank,
            "constant_images": constant,
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
            "checks": [
                "the header has the label first, then every pixel once and in order",
                "every row has as many values as the header",
                f"labels are whole numbers from 0 to {classes - 1}",
                "pixels are whole numbers from 0 to 255, not scaled",
                f"every class has at least {params.min_per_class} images",
                "the file did not change while it was read",
            ],
            "warnings": [*csv.warnings, *warnings],
            # A report on classes without names is, byte for byte, what it was before there were names.
            "params": params.model_dump(exclude=set() if named else {"class_names"}),
        }


def _warnings(
    counts: NDArray[np.int64],
    copies: int,
    conflicts: int,
    constant: int,
    blank: int,
    rough: NDArray[np.float64],
    params: ValidateParams,
) -> list[str]:
    """What does not stop a training. `counts`, `rough`: by class."""
    warnings = []
    ratio = counts.max() / counts.min()
    if ratio > params.max_imbalance:
        warnings.append(
            f"Imbalance: class {counts.argmax()} has {counts.max():,} images, class {counts.argmin()} "
            f"has {counts.min():,}, {ratio:.1f} times fewer (`validate.max_imbalance`: "
            f"{params.max_imbalance:g}). Rare classes will be drawn worse."
        )
    if counts.min() < FEW:
        warnings.append(
            f"Few images: class {counts.argmin()} has {counts.min():,}. With fewer than {FEW} the drawings "
            "of a class repeat a few forms, and some copy. More images help more than any parameter."
        )
    if copies:
        warnings.append(
            f"Duplicates: {copies:,} images repeat an earlier one; all copies of an image stay on one "
            "side of the hold-out."
        )
    if conflicts:
        warnings.append(f"Conflicting labels: {conflicts:,} images repeat one of another class.")
    if constant:
        warnings.append(
            f"Constant images: {constant:,} have one value everywhere ({blank:,} blank)."
        )
    warnings += [
        f"Class {label}: neighbouring pixels have little to do with each other ({rough[label]:.2f}; "
        "noise has 1, digits 0.3). Noise, or pixels in a wrong order?"
        for label in np.flatnonzero(rough > NOISE_ROUGHNESS)
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
    """Raises DataError when a class has no image or too few. No image is too few for any params."""
    found, missing = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    if len(found) < 2:
        raise DataError(
            f"{name}: all labels are {found[0]}. A conditional generator needs at least 2 classes."
        )
    few = found[counts[found] < params.min_per_class]
    problems = []
    if len(missing):
        problems.append(
            f"no image of class {_label_list(missing)}; the labels found are {_label_list(found)}."
        )
    if len(few):
        shown = ", ".join(f"class {label} has {counts[label]:,}" for label in few[:SHOWN])
        problems.append(
            f"{len(few):,} of {len(found):,} classes {'have' if len(few) > 1 else 'has'} fewer than "
            f"{params.min_per_class} images: {shown}{', …' * (len(few) > SHOWN)}."
        )
    if params.classes is None and found[-1] in few and len(few) < len(found):
        problems.append(
            f"If {found[-1]} is no class but a slip, set `validate.classes` and validate again: the rows "
            "are named then."
        )
    if len(missing):
        problems.append(_gap_advice(found, missing, params))
    if len(few):
        least = counts[few].min()
        problems.append(
            f"Add images, or lower `validate.min_per_class` to {least} in params.yaml."
            if least >= 2
            else "Add images: `validate.min_per_class` cannot be below 2."
        )
    if problems:
        raise DataError(f"{name}: {' '.join(problems)}")


def _named(classes: int, params: ValidateParams, name: str) -> dict[str, list[str]]:
    """What the report says of the classes' names; nothing where they are numbers."""
    if params.class_names is None:
        return {}
    if len(params.class_names) != classes:
        raise DataError(
            f"{name}: {classes} classes, with labels from 0 to {classes - 1}, and `validate.class_names` "
            f"has {len(params.class_names)} names. Give one name a class, in the order of the labels."
        )
    return {"class_names": params.class_names}


def _gap_advice(
    found: NDArray[np.int64], missing: NDArray[np.int64], params: ValidateParams
) -> str:
    """What to do about labels with a gap: they are wrong, or `validate.classes` is, or images lack."""
    renumber = f"Labels must count from 0 without a gap: {renumbering_advice(params)}"
    if params.classes is None:
        return renumber
    them, such = (
        ("it", "is no such class") if len(missing) == 1 else ("them", "are no such classes")
    )
    return (
        f"`validate.classes` is {params.classes}: add images of {them} or, if there {such}, set it to "
        f"{len(found)}.{f' {renumber}' * bool(missing[0] < len(found))}"
    )


def _label_list(labels: NDArray[np.int64]) -> str:
    return ", ".join(map(str, labels[:SHOWN])) + ", …" * (len(labels) > SHOWN)


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
    shape = report["shape"]
    title = name.replace("\n", " ").replace("`", "'")
    facts = {
        "images": f"{report['rows']:,}",
        "image": f"{shape['height']} × {shape['width']}, {shape['channels']} channel"
        f"{'s' * (shape['channels'] > 1)}",
        "classes": str(report["classes"]),
        "duplicates": f"{report['duplicates']:,}",
        "conflicting labels": f"{report['conflicting_labels']:,}",
        "blank images": f"{report['blank_images']:,}",
        "constant images": f"{report['constant_images']:,}",
        "pixel values": f"{report['pixels']['min']} to {report['pixels']['max']}, mean "
        f"{report['pixels']['mean']:.2f}, standard deviation {report['pixels']['std']:.2f}",
        "sha256 of the CSV": f"`{report['csv']['sha256']}`",
    }
    most = max(report["class_counts"])
    lines = [f"# Validation of `{title}`", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "## Images per class", "", "| class | images | |", "|---:|---:|---|"]
    names = report.get("class_names") or range(report["classes"])
    lines += [
        f"| {in_markdown(names[label])} | {count:,} | {'█' * max(1, round(20 * count / most))} |"
        for label, count in enumerate(report["class_counts"])
    ]
    lines += ["", "## Checks passed", ""] + [f"- {check}" for check in report["checks"]]
    lines += ["", "## Warnings", ""] + [f"- {text}" for text in report["warnings"] or ["none"]]
    return "\n".join(lines) + "\n"


# --- drift --------------------------------------------------------------------------------------


def validated_params(report: Any, name: str) -> ValidateParams:
    """The params that a report's CSV was validated with: by them it is read alike again.

    Raises DataError for a report of another version.
    """
    try:
        # Of classes without names a report is silent.
        return ValidateParams.model_validate({"class_names": None, **report["params"]})
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{name}: not a report of this version. Make it again: `dvc repro --force validate`."
        ) from None
