"""An evaluation's report, read: its headline numbers, what real images get, its tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cgan.errors import percent
from cgan.metric import METRICS, Evaluation

WIDE = 0.05


def quality_line(report: Evaluation, training_s: float | None = None) -> str:
    """`99.4 % show the class asked for (real images 98.6 %), 96 % as varied overall as real images, weakest
    class: 9 (569 different drawings, real images 1,000), no near copies, trained in 24 s`."""
    parts = []
    if reason := report.get("not_measurable"):
        parts.append(f"what the drawings are worth is not measurable: {reason}")
    for key, words in _IN_WORDS.items():
        value, real = METRICS[key].value(report), METRICS[key].floor(report)
        if value is not None and math.isfinite(value) and real:
            parts.append(words(value, real))
            # Few held-out images say little of what real ones get.
            low, high = report[key].get("floor_interval_95", (0, 0))
            if high - low > WIDE:
                between = f"between {100 * low:.0f} and {percent(high, 0)})"
                parts[-1] = f"{parts[-1].removesuffix(')')}, {between}"
        if key == "recall" and not reason and (weakest := weakest_class(report)):
            parts.append(f"weakest class: {weakest}")
    constant = report.get("conditional_accuracy", {}).get("constant", 0.0)
    if parts and constant > (METRICS["conditional_accuracy"].value(report) or math.inf) / 2:
        parts[0] += f" (the same answer for all: {percent(constant, 0)})"
    if training_s:
        parts.append(f"trained in {training_s:,.0f} s")
    return ", ".join(parts)


_IN_WORDS: dict[str, Callable[[float, float], str]] = {
    "conditional_accuracy": lambda value, real: (
        f"{percent(value)} show the class asked for (real images {percent(real)})"
    ),
    "recall": lambda value, real: (
        (f"{percent(value / real, 0)} " if value < 0.995 * real else "")
        + "as varied overall as real images"
    ),
    "copies": lambda value, real: (
        f"{percent(value)} near copies (real images {percent(real)})" if value else "no near copies"
    ),
}


def weakest_class(report: Evaluation) -> str:
    """The class that is furthest behind real images, by the part that it reaches of their number; empty where
    none is behind, or known."""
    candidates = []
    held = report.get("heldout_by_class", ())
    for key, words in _OF_A_CLASS.items():
        entry = report.get(key, {})
        pairs = zip(entry.get("by_class", ()), entry.get("floor_by_class", ()), held, strict=False)
        for label, (value, real, count) in enumerate(pairs):
            if value is not None and math.isfinite(value) and real:
                candidates.append((value / real, label, words(value, real, count)))
    part, label, text = min(candidates, default=(1.0, 0, ""))
    if part >= 1:
        return ""
    names = report.get("class_names")
    return f"{names[label] if names else label} ({text})"


_OF_A_CLASS: dict[str, Callable[[float, float, int], str]] = {
    "conditional_accuracy": lambda value, real, count: (
        f"{percent(value)} right, its {count:,} held-out images {percent(real)}"
    ),
    "different": lambda value, real, _: f"{value:,.0f} different drawings, real images {real:,.0f}",
}


def headline(report: Evaluation) -> dict[str, float]:
    """A number for each metric; the distance has its floor behind it."""
    flat: dict[str, float] = {}
    for key, metric in METRICS.items():
        if (value := metric.value(report)) is not None:
            flat[key] = round(value, 5)
            if key == "fid_judge":
                flat["fid_judge_floor"] = round(report[key]["floor"], 5)
    return flat


def leading(report: Evaluation) -> dict[str, float]:
    """The three numbers that `dvc metrics diff` shows. `dvc exp show` has room for no more beside a param."""
    numbers = headline(report)
    leads = [key for key, metric in METRICS.items() if metric.headline and key in numbers]
    return {key: numbers[key] for key in leads[:3]}


def tracked(report: Evaluation) -> dict[str, float]:
    """The metrics of the run's page, `quality/…`: one number each. The rest is in the tables."""
    return {f"quality/{key}": value for key, value in headline(report).items() if key in METRICS}


def quality_table(report: Evaluation) -> list[list[str]]:
    """Each metric with its interval, what real images get and what it means, a header first."""
    rows = [["metric", "drawn", "95 % interval", "real images", "better", "meaning"]]
    for metric in METRICS.values():
        value, floor = metric.value(report), metric.floor(report)
        if value is not None:
            interval = " to ".join(map(metric.shown, metric.interval(report) or ()))
            real = "" if floor is None else metric.shown(floor)
            rows.append(
                [metric.name, metric.shown(value), interval, real, metric.better, metric.meaning]
            )
    return rows


def stated(facts: dict[str, Any]) -> Evaluation:
    """What a file says of its quality, as the package's own does; empty where it says nothing."""
    if not (quality := facts.get("quality")):
        return {}
    floors = quality["floors"]
    report = {k: {"value": v, "floor": floors.get(k)} for k, v in quality["metrics"].items()}
    report["conditional_accuracy"]["interval_95"] = quality["conditional_accuracy_interval_95"]
    return report | {"measurement_context": quality["measurement_context"]}


CLASS_COLUMNS = (
    "class",
    "accuracy",
    "judge on real images",
    "held-out images",
    "different drawings",
    "of real images",
    "Fréchet distance",
    "of real images ",
)


def class_table(report: Evaluation) -> list[list[Any]]:
    """Each class by itself, beside real images; a header first. Empty cells where nothing is known: a
    distance takes `comparison.LEAST_FOR_DISTANCE` held-out images of the class."""
    accuracy, distance, different = (
        report[key] for key in ("conditional_accuracy", "fid_judge", "different")
    )
    columns = [
        accuracy["by_class"],
        accuracy["floor_by_class"],
        report["heldout_by_class"],
        different["by_class"],
        different["floor_by_class"],
        distance["by_class"],
        distance["floor_by_class"],
    ]
    names = report.get("class_names") or range(len(columns[0]))
    rows: list[list[Any]] = [list(CLASS_COLUMNS)]
    for name, values in zip(names, zip(*columns, strict=True), strict=True):
        rows.append([name, *("" if value is None else round(value, 5) for value in values)])
    return rows
