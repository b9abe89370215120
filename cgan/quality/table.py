"""An evaluation's report, read: its headline numbers, what real images get, its tables."""

import math
from typing import Any

from cgan.errors import percent
from cgan.metric import METRICS, Evaluation

WIDE = 0.05
WEAK = 0.9  # a judge that is right on fewer real images says little of drawings


def quality_line(report: Evaluation, training_s: float | None = None) -> str:
    """`99.4 % of the drawings show the class asked for (real images 98.6 %: they are less typical, so
    harder), 96 % as varied overall as real images, weakest class: 9 (94 % as diverse as real images), no near
    copies, trained in 24 s`. What a weak judge says comes last."""
    parts, reason = [], report.get("not_measurable")
    if reason:
        parts.append(f"what the drawings are worth is not measurable: {reason}")
    accuracy = _beside_real(report, "conditional_accuracy")
    weak = accuracy is not None and accuracy[1] < WEAK
    if accuracy and not weak:
        parts.append(_accuracy_in_words(report, *accuracy))
    if weak and (pair := _beside_real(report, "gan_train_accuracy")):
        learnt, taught = map(percent, pair)
        part = f"a classifier that learnt from drawings alone is right on {learnt} of real images"
        parts.append(f"{part}, one that learnt from real images on {taught}")
    if (pair := _beside_real(report, "recall")) and pair[1]:
        value, real = pair
        part = f"{percent(value / real, 0)} " * (value < 0.995 * real)
        parts.append(f"{part}as varied overall as real images")
    if not reason and (weakest := weakest_class(report)):
        parts.append(f"weakest class: {weakest}")
    if pair := _beside_real(report, "copies"):
        value, real = pair
        near = f"{percent(value)} near copies (real images {percent(real)})"
        parts.append(near if value else "no near copies")
    if accuracy and weak:
        parts.append(f"by a weak judge, {_accuracy_in_words(report, *accuracy)}")
    if training_s:
        parts.append(f"trained in {training_s:,.0f} s")
    return ", ".join(parts)


def _accuracy_in_words(report: Evaluation, value: float, real: float) -> str:
    entry = report["conditional_accuracy"]
    low, high = entry.get("floor_interval_95", (0, 0))
    # Few held-out images say little of what real ones get.
    between = f", between {100 * low:.0f} and {percent(high, 0)}" * (high - low > WIDE)
    easier = ": they are less typical, so harder" * (value > real)
    words = f"{percent(value)} of the drawings show the class asked for "
    words += f"(real images {percent(real)}{between}{easier})"
    if value and (constant := entry.get("constant", 0.0)) > value / 2:
        words += f" (the same answer for all: {percent(constant, 0)})"
    return words


def _beside_real(report: Evaluation, key: str) -> tuple[float, float] | None:
    """A metric, and what real images get; None where one of them is not known."""
    value, real = METRICS[key].value(report), METRICS[key].floor(report)
    if value is None or real is None or not math.isfinite(value):
        return None
    return value, real


def weakest_class(report: Evaluation) -> str:
    """The class that is furthest behind real images, in accuracy or diversity, at the near ends of the
    intervals; empty where none is clearly behind, or known."""
    accuracy, diversity = (report.get(key, {}) for key in ("conditional_accuracy", "diversity"))
    of_real, held = accuracy.get("floor_by_class", ()), report.get("heldout_by_class", ())
    intervals = (accuracy.get(key, ()) for key in ("interval_by_class", "floor_interval_by_class"))
    rows = zip(accuracy.get("by_class", ()), of_real, held, *intervals, strict=False)
    behind = []
    for label, (value, real, count, interval, real_interval) in enumerate(rows):
        if interval and real_interval and real_interval[0]:
            words = f"{percent(value)} right, its {count:,} held-out images {percent(real)}"
            behind.append((interval[1] / real_interval[0], label, words))
    pairs = (diversity.get(key, ()) for key in ("by_class", "interval_by_class"))
    for label, (value, interval) in enumerate(zip(*pairs, strict=False)):
        if interval:
            behind.append((interval[1], label, f"{percent(value, 0)} as diverse as real images"))
    part, label, text = min(behind, default=(1.0, 0, ""))
    if part >= 1:
        return ""
    names = report.get("class_names")
    return f"{names[label] if names else label} ({text})"


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


def fewer_judged(report: Evaluation, samples: int) -> str:
    """Why fewer than `samples` drawings were judged, in a sentence; empty where they were not."""
    if (judged := report["measurement_context"]["drawn_images"]) >= samples:
        return ""
    return (
        f"{judged:,} drawings were judged, not {samples:,} (`evaluate.samples`), as each takes a part of a "
        "second: the intervals are so much wider."
    )


def quality_table(report: Evaluation) -> list[list[str]]:
    """Each metric with its interval, what real images get and what it means, a header first."""
    rows = [["metric", "drawn", "95 % interval", "real images", "better", "meaning"]]
    for metric in METRICS.values():
        value, floor = metric.value(report), metric.floor(report)
        if metric.in_tables and value is not None:
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


def class_table(report: Evaluation) -> list[list[Any]]:
    """Each class by itself, beside real images; a header first. Empty cells where nothing is known: a
    distance takes `comparison.LEAST_FOR_DISTANCE` held-out images of the class."""
    accuracy, distance, diversity = (
        report[key] for key in ("conditional_accuracy", "fid_judge", "diversity")
    )
    columns = {
        "class": report.get("class_names") or range(len(accuracy["by_class"])),
        "accuracy": accuracy["by_class"],
        "judge on real images": accuracy["floor_by_class"],
        "held-out images": report["heldout_by_class"],
        "diversity, as a fraction of real images'": diversity["by_class"],
        "Fréchet distance": distance["by_class"],
        "Fréchet distance of real images": distance["floor_by_class"],
    }
    rows: list[list[Any]] = [list(columns)]
    for name, *values in zip(*columns.values(), strict=True):
        rows.append([name, *("" if value is None else round(value, 5) for value in values)])
    return rows
