"""Are two CSVs of like data? By the profiles in their validation reports.

Each distance is 0 for equal data and has a unit that can be pictured; the limits are far above what two
random halves of MNIST differ by (a few tenths of a per cent each).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgan.data.csv_report import BINS
from cgan.errors import DataError

DRIFT_LIMITS = {
    "class_mix": 0.10,  # share of the images that would need another class
    "pixel_values": 0.03,  # mean change of brightness that is needed, as a part of 0–255
    "position": 0.02,  # distance that the ink must move, as a part of the image's side
}


def load_report(path: Path) -> dict[str, Any]:
    """A validation report that `distances` takes.

    Raises DataError that says what is wrong with it; what to do, the caller knows.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        shape, profile = report["shape"], report["profile"]
        lengths = {"brightness": BINS, "rows": shape["height"], "columns": shape["width"]}
        sums = [(report["class_counts"], report["classes"])]
        sums += [(profile[key], length) for key, length in lengths.items()]
        # A distance to no number would be within every limit.
        whole = bool(report["csv"]["sha256"] and report["rows"]) and all(
            len(numbers) == length and min(numbers) >= 0 and 0 < float(sum(numbers)) < math.inf
            for numbers, length in sums
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{path}: not a validation report of this version. Was it cut off?")
    return report


def distances(report: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Distances by the names of DRIFT_LIMITS. Raises DataError when shapes or classes differ."""
    for key in ("shape", "classes"):  # so the profiles have equal lengths, too
        if report[key] != reference[key]:
            raise DataError(
                f"drift: `{key}` is {report[key]}, the reference has {reference[key]}. "
                "Compare files of one kind of image."
            )
    found, expected = report["profile"], reference["profile"]
    mix, usual = (np.divide(n, sum(n)) for n in (report["class_counts"], reference["class_counts"]))
    return {
        "class_mix": round(float(np.abs(mix - usual).sum() / 2), 4),
        "pixel_values": _earth_movers_distance(found["brightness"], expected["brightness"]),
        "position": max(
            _earth_movers_distance(found[axis], expected[axis]) for axis in ("rows", "columns")
        ),
    }


def check_drift(report: dict[str, Any], reference: Path, name: str) -> dict[str, float]:
    """The distances to the report in the file `reference`, if all are within DRIFT_LIMITS.

    Raises DataError that gives those which are not, and when the file is no such report.
    """
    try:
        known = load_report(reference)
    except DataError as error:
        raise DataError(
            f"{error} Make it from good data: `cgan validate GOOD.csv --report {reference}`."
        ) from None
    found = distances(report, known)
    over = [
        f"{key} {value:.3f} (limit {DRIFT_LIMITS[key]:.2f})"
        for key, value in found.items()
        if value > DRIFT_LIMITS[key]
    ]
    if over:
        raise DataError(
            f"{name}: differs from the reference: {', '.join(over)}. Inverted, moved or rescaled "
            "images, or another mix of classes? If it is meant so, make a new reference from this file."
        )
    return found


def _earth_movers_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Earth mover's distance of two histograms on 0–1, each scaled to the sum 1."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return round(float(np.abs(np.cumsum(a / a.sum() - b / b.sum())).sum() / len(a)), 4)
