"""Is a CSV like the reference it is compared with? Three distances between two validation reports.

Each is 0 for equal data and has a unit that can be pictured; the limits are far above what two random
halves of MNIST differ by (a few tenths of a per cent each).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgan.errors import DataError

LIMITS = {
    "class_mix": 0.10,  # share of the images that would need another class
    "pixel_values": 0.03,  # mean change of brightness that is needed, as a part of 0–255
    "position": 0.02,  # distance that the ink must move, as a part of the image's side
}


def distances(report: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Distances by the names of LIMITS. Raises DataError when shapes or classes differ."""
    for key in ("shape", "classes"):
        if report[key] != reference[key]:
            raise DataError(
                f"drift: `{key}` is {report[key]}, the reference has {reference[key]}. "
                "Compare files of one kind of image."
            )
    found, expected = report["profile"], reference["profile"]
    counts = [np.asarray(each["class_counts"], float) for each in (report, reference)]
    mixes = [count / count.sum() for count in counts]
    return {
        "class_mix": round(float(np.abs(mixes[0] - mixes[1]).sum() / 2), 4),
        "pixel_values": _transport(found["brightness"], expected["brightness"]),
        "position": max(_transport(found[axis], expected[axis]) for axis in ("rows", "columns")),
    }


def check(report: dict[str, Any], reference: Path, name: str) -> dict[str, float]:
    """The distances to the report in the file `reference`, if all are within LIMITS.

    Raises DataError that gives those which are not, and when the file is no such report.
    """
    try:
        found = distances(report, json.loads(reference.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{reference}: cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise DataError(
            f"{reference}: not a validation report of this version. Make it from good data: "
            f"`cgan validate GOOD.csv --report {reference}`."
        ) from None
    over = [
        f"{key} {value:.3f} (limit {LIMITS[key]:.2f})"
        for key, value in found.items()
        if value > LIMITS[key]
    ]
    if over:
        raise DataError(
            f"{name}: differs from the reference: {', '.join(over)}. Inverted, moved or rescaled "
            "images, or another mix of classes? If it is meant so, make a new reference from this file."
        )
    return found


def _transport(first: Sequence[float], second: Sequence[float]) -> float:
    """Earth mover's distance of two histograms on 0–1, each scaled to the sum 1."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or a.sum() <= 0 or b.sum() <= 0:
        raise ValueError("profiles of different kinds")
    return round(float(np.abs(np.cumsum(a / a.sum() - b / b.sum())).sum() / len(a)), 4)
