"""Is a CSV like the reference it is compared with? Three distances between two validation reports.

Each is 0 for equal data and has a unit that can be pictured; the limits are far above what two random
halves of MNIST differ by (a few tenths of a per cent each).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from cgan.errors import DataError

LIMITS = {
    "class_mix": 0.10,  # share of the images that would need another class
    "pixel_values": 0.03,  # mean change of brightness that is needed, as a part of 0–255
    "position": 0.02,  # distance that the ink must move, as a part of the image's side
}
BINS = 32  # of brightness, in a report's profile

_Sums = Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]


class _Csv(BaseModel):
    sha256: str


class _Shape(BaseModel):
    channels: int
    height: int
    width: int


class _Profile(BaseModel):
    brightness: Annotated[_Sums, Field(min_length=BINS, max_length=BINS)]
    rows: _Sums
    columns: _Sums


class _Report(BaseModel):
    """What is read of a validation report (`cgan.data.csv_reader.report_on`)."""

    csv: _Csv
    rows: int
    classes: int
    class_counts: _Sums
    shape: _Shape
    profile: _Profile

    @model_validator(mode="after")
    def _fits_together(self) -> _Report:
        found = [len(self.class_counts), len(self.profile.rows), len(self.profile.columns)]
        if found != [self.classes, self.shape.height, self.shape.width]:
            raise ValueError("as many counts and sums as classes, rows and columns are expected")
        profile = self.profile
        if (
            min(map(sum, (self.class_counts, profile.brightness, profile.rows, profile.columns)))
            <= 0
        ):
            raise ValueError("sums above 0 are expected")
        return self


def load_report(path: Path, name: str = "") -> dict[str, Any]:
    """A validation report that `distances` takes; `name` stands for it in messages.

    Raises DataError that says what is wrong with it; what to do, the caller knows.
    """
    name = name or str(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        _Report.model_validate(report)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the whole"
        raise DataError(
            f"{name}: not a validation report of this version ({place}: {fault['msg']})."
        ) from None
    except (ValueError, RecursionError):
        raise DataError(
            f"{name}: not a validation report, not even JSON. Was it cut off?"
        ) from None
    return dict(report)


def distances(report: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Distances by the names of LIMITS. Raises DataError when shapes or classes differ."""
    for key in ("shape", "classes"):  # so the profiles have equal lengths, too
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
        known = load_report(reference)
    except DataError as error:
        raise DataError(
            f"{error} Make it from good data: `cgan validate GOOD.csv --report {reference}`."
        ) from None
    found = distances(report, known)
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
    return round(float(np.abs(np.cumsum(a / a.sum() - b / b.sum())).sum() / len(a)), 4)
