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
UNSCALED = 16  # the highest value of scikit-learn's digits, of tables of counts
BLOCK_VALUES = 100_000  # looked at at once: they stay in the cache
NOISE_ROUGHNESS = 0.8  # above it, a class is not made of pictures
BINS = 32  # of brightness, in a profile


def report_on(found: LabelledImages, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report: plain JSON, a function of the data and `params` alone. What the source names a
    test set is counted alone.

    Raises DataError for no training set: a class too small, a wrong scale.
    """
    kept = np.arange(len(found.labels))
    if found.splits is not None:
        kept = np.flatnonzero(found.splits != SPLITS.index("test"))
    images, labels = found.images, found.labels
    if len(kept) < len(labels):
        images, labels = images[kept], labels[kept]
    flat = images.reshape(len(images), -1)
    counts = np.bincount(labels, minlength=found.classes)
    _check_counts(counts, params, name, bool(found.files))
    darkest, brightest = flat.min(axis=1), flat.max(axis=1)
    if brightest.max() <= 1:
        raise DataError(
            f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
            "to 0–1 (multiply them by 255), or all images are blank."
        )
    histogram = np.zeros(256, np.int64)
    roughness = np.zeros(found.classes)
    for start in range(0, len(labels), step := max(1, BLOCK_VALUES // flat.shape[1])):
        some, of = images[start : start + step], labels[start : start + step]
        histogram += np.bincount(some.ravel(), minlength=256)
        roughness += np.bincount(of, _roughness(some), minlength=found.classes)
    values = np.arange(256)
    mean = float((histogram * values).sum() / histogram.sum())
    variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
    ink = images.sum(axis=(0, 1), dtype=np.int64)
    firsts = first_copies(image_digests(images))
    copies = np.flatnonzero(firsts != np.arange(len(firsts)))
    conflicts = copies[labels[copies] != labels[firsts[copies]]]
    constant = np.flatnonzero(darkest == brightest)
    report = {
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
        "roughness": (roughness / counts).round(4).tolist(),  # by class
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
    if found.splits is not None:
        report["splits"] = dict(
            zip(SPLITS, np.bincount(found.splits, minlength=3).tolist(), strict=True)
        )

    def repeating(rows: NDArray[np.int64]) -> str:
        pairs = zip(kept[rows], kept[firsts[rows]], strict=True)
        return listed([f"{found.place(row)} is {found.place(first)}" for row, first in pairs])

    where = {
        "duplicates": repeating(copies),
        "conflicts": repeating(conflicts),
        "constant": listed([found.place(row) for row in kept[constant]]),
    }
    return report | {"warnings": [*found.warnings, *_warnings(report, where)]}


def _warnings(report: dict[str, Any], where: dict[str, str]) -> list[str]:
    """What does not stop a training. `where`: the first images of a kind."""
    counts, limit = np.array(report["class_counts"]), report["params"]["max_imbalance"]
    names = report["params"]["class_names"] or range(len(counts))
    most, fewest = int(counts.argmax()), int(counts.argmin())
    few = [f"class {names[n]} has {counts[n]:,}" for n in counts.argsort() if counts[n] < FEW]
    copies, conflicts = report["duplicates"], report["conflicting_labels"]
    constant, imbalance = report["constant_images"], report["imbalance"]
    brightest = report["pixels"]["max"]
    found = [
        (
            brightest <= UNSCALED,
            f"Dark: no value is above {brightest} of 255. Are they of another scale (0–16, as in "
            f"scikit-learn's digits)? Multiply them by {255 // max(brightest, 1)}.",
        ),
        (
            imbalance > limit,
            f"Imbalance: class {names[most]} has {counts[most]:,} images, class {names[fewest]} has "
            f"{counts[fewest]:,}, {imbalance:.1f} times fewer (`validate.max_imbalance`: {limit:g}). Rare "
            "classes will be drawn worse.",
        ),
        (
            few,
            f"Few images: {listed(few)}. With fewer than {FEW} the drawings of a class repeat a few forms, "
            "and some copy. More images help more than any parameter.",
        ),
        (
            copies,
            f"Duplicates: {copies:,} images repeat an earlier one ({where['duplicates']}); all copies of an "
            "image stay on one side of the hold-out.",
        ),
        (
            conflicts,
            f"Conflicting labels: {conflicts:,} images repeat one of another class ({where['conflicts']}).",
        ),
        (
            constant,
            f"Constant images: {constant:,} have one value everywhere, {report['blank_images']:,} are blank "
            f"({where['constant']}).",
        ),
    ]
    rough = [
        f"Class {names[label]}: neighbouring pixels have little to do with each other ({value:.2f}; noise "
        "has 1, digits 0.3). Noise, or pixels in a wrong order?"
        for label, value in enumerate(report["roughness"])
        if value > NOISE_ROUGHNESS
    ]
    return [text for there, text in found if there] + rough


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


def _check_counts(
    counts: NDArray[np.int64], params: ValidateParams, name: str, pictures: bool
) -> None:
    """Raises DataError when a class has no image, or too few."""
    found, missing = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    few = found[counts[found] < params.min_per_class]
    names, slip = params.class_names or range(len(counts)), ""
    if not params.classes and not pictures:
        slip = (
            " If one of the labels is a slip, set `validate.classes` and validate again: its rows are named "
            "then."
        )
    if len(found) < 2:
        problem = (
            f"all labels are {names[found[0]] if len(names) > found[0] else found[0]}. A conditional "
            "generator needs at least 2 classes."
        )
    elif len(missing):
        declared = (
            f"`validate.classes` is {params.classes}: add images or, if there is no such class, set it to "
            f"{len(found)}. "
        ) * bool(params.classes)
        problem = (
            f"no image of class {listed(missing.tolist())}; the labels found are "
            f"{listed(found.tolist())}. {declared}Labels must count from 0 without a "
            f"gap: {renumbering_advice(params)}{slip}"
        )
    elif len(names) != len(counts):
        problem = (
            f"{len(counts)} classes, with labels from 0 to {len(counts) - 1}, and `validate.class_names` has "
            f"{len(names)} names. Give one name a class, in the order of the labels."
        )
    elif len(few):
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
    colour = " in colour" * (shape["channels"] == 3)
    lines = [
        f"{report['rows']:,} images of {shape['height']} × {shape['width']} pixels{colour}, "
        f"{report['classes']} classes with {min(counts):,} to {max(counts):,} images each",
        f"duplicates: {report['duplicates']:,}, constant images: {report['constant_images']:,}, "
        f"pixel mean {pixels['mean']:.1f} ± {pixels['std']:.1f}",
        *(
            "of these held out: {val:,}; to test on, beside them: {test:,}".format(**splits)
            for splits in [report.get("splits")]
            if splits
        ),
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
    """The params that a report's CSV was validated with: by them it is read alike again.

    Raises DataError for a report of another version.
    """
    try:
        return ValidateParams.model_validate(report["params"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{name}: not a report of this version. Make it again: `dvc repro --force validate`."
        ) from None
