"""The metrics, once: each one's key, name, meaning, direction, and where the evaluation's report has it.

To add a metric, measure it in `evaluation.evaluate` and give it a row here: `dvc metrics`, MLflow,
`cgan report`, `cgan status` and Prefect's table then show it. The gate takes its names from here, and
compares only the metrics in `comparison.COMPARED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """`value` and `floor` (what real images get in place of drawings) are read from the report; None
    where it has none. `on_screen`: told where there is room for a few only."""

    name: str
    meaning: str
    better: str  # "higher" or "lower"
    value: Callable[[Report], float | None]
    floor: Callable[[Report], float | None]
    on_screen: bool = True


def _at(*keys: str) -> Callable[[Report], float | None]:
    """Reads the number there, or None: a report written before the metric existed does not have it."""

    def read(report: Report) -> float | None:
        found: Any = report
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        number: float | None = found
        return number

    return read


def _fewest(report: Report, part: str) -> float | None:
    """Of the class with the fewest different drawings: their number, or that of its real images."""
    found = report.get("different", {"by_class": []})
    numbers = [(number, n) for n, number in enumerate(found["by_class"]) if number is not None]
    fewest: float | None = found[part][min(numbers)[1]] if numbers else None
    return fewest


def _manifold(name: str, meaning: str, on_screen: bool) -> Metric:
    value, floor = _at("manifold", "value", name), _at("manifold", "floor", name)
    return Metric(name, meaning, "higher", value, floor, on_screen)


# Key, of metrics.json and of MLflow after `quality/` → the metric. In the order in which they are told: a
# terminal shows the first three or four beside each other (`dvc exp show`).
METRICS = {
    "conditional_accuracy": Metric(
        "conditional accuracy",
        "share of drawings that show the class asked for",
        "higher",
        _at("conditional_accuracy", "value"),
        _at("conditional_accuracy", "floor"),
    ),
    "fid_judge": Metric(
        "Fréchet distance",
        "from held-out real images, in the judge's features",
        "lower",
        _at("fid_judge", "value"),
        _at("fid_judge", "floor"),
    ),
    "coverage": _manifold("coverage", "share of real images with a drawing near them", True),
    "recall": _manifold("recall", "share of real images that look like some drawing", True),
    "worst_class_accuracy": Metric(
        "accuracy of the worst class",
        "conditional accuracy of the class that fares worst",
        "higher",
        lambda report: min(
            value for value in report["conditional_accuracy"]["by_class"] if value is not None
        ),
        lambda _: None,
    ),
    "different_drawings": Metric(
        "different drawings",
        "how many the least varied class has; moved or brightened copies count once",
        "higher",
        lambda report: _fewest(report, "by_class"),
        lambda report: _fewest(report, "floor_by_class"),
    ),
    "gan_train_accuracy": Metric(
        "GAN-train accuracy",
        "of a class network that saw drawings only, on real images",
        "higher",
        _at("gan_train", "value"),
        _at("gan_train", "floor"),
    ),
    "copies": Metric(
        "copies",
        "share of drawings closer to a training image, moved or brightened, than 99 % of reals",
        "lower",
        _at("copies", "closer_than_1_percent_of_heldout"),
        lambda _: 0.01,  # by its definition
    ),
    "kid_judge": Metric(
        "kernel distance",
        "from the same images by another formula; 0 is like real, and chance may put it below",
        "lower",
        _at("kid_judge", "value"),
        _at("kid_judge", "floor"),
        on_screen=False,
    ),
    "precision": _manifold("precision", "share of drawings that look like some real image", False),
    "density": _manifold(
        "density", "how deep among the real images the drawings lie; 1 is like real", False
    ),
}


def verdict(report: Report, training_s: float | None = None) -> str:
    """`99.4 % legible (real images 98.6 %), 96 % as varied as real images, no copies, trained in 24 s`."""
    parts = []
    for key, words in _VERDICT.items():
        value, real = METRICS[key].value(report), METRICS[key].floor(report)
        if value is not None and math.isfinite(value) and real:
            parts.append(words(value, real))
    if training_s:
        parts.append(f"trained in {training_s:,.0f} s")
    return ", ".join(parts)


_VERDICT: dict[str, Callable[[float, float], str]] = {
    "conditional_accuracy": lambda value, real: (
        f"{100 * value:.1f} % legible (real images {100 * real:.1f} %)"
    ),
    "recall": lambda value, real: (
        (f"{100 * value / real:.0f} % " if value < 0.995 * real else "")
        + "as varied as real images"
    ),
    "copies": lambda value, real: (
        "no copies" if value <= real else f"{100 * value:.1f} % near copies"
    ),
}


def headline(report: Report) -> dict[str, float]:
    """The flat numbers that `dvc metrics show` prints; the distance has its floor behind it."""
    flat: dict[str, float] = {}
    for key, metric in METRICS.items():
        if (value := metric.value(report)) is not None:
            flat[key] = value
        if key == "fid_judge":
            flat["fid_judge_floor"] = report["fid_judge"]["floor"]
    return {name: round(value, 5) for name, value in flat.items()}


def floors(report: Report) -> dict[str, float]:
    """What real images get in place of drawings, by the metric's key."""
    found = {key: metric.floor(report) for key, metric in METRICS.items()}
    return {key: value for key, value in found.items() if value is not None}


def tracked(report: Report) -> dict[str, float]:
    """The metrics of the run's page, `quality/…`: one number each. The rest is in the tables."""
    return {f"quality/{key}": value for key, value in headline(report).items() if key in METRICS}


def quality_table(report: Report) -> list[list[Any]]:
    """Each metric with what real images get and what it means, a header first."""
    numbers, real = headline(report), floors(report)
    rows: list[list[Any]] = [["metric", "drawn", "real images", "better", "meaning"]]
    for key, metric in METRICS.items():
        if key in numbers:
            floor = round(real[key], 5) if key in real else ""
            rows.append([metric.name, numbers[key], floor, metric.better, metric.meaning])
    return rows


def class_table(report: Report) -> list[list[Any]]:
    """Accuracy and distance of each class, a header first; no distance where one image was held out."""
    columns = [report[metric]["by_class"] for metric in ("conditional_accuracy", "fid_judge")]
    rows: list[list[Any]] = [["class", "accuracy", "Fréchet distance"]]
    names = report.get("class_names") or range(len(columns[0]))
    for name, values in zip(names, zip(*columns, strict=True), strict=True):
        rows.append([name, *("" if value is None else round(value, 5) for value in values)])
    return rows
