"""An evaluation in words and in rows: the line that says how good the drawings are, numbers for DVC and
MLflow, the table of the classes."""

import math
from typing import Any

from cgan.evaluation import METRICS, Evaluation, Score
from cgan.quality.proportions import joint_z, wilson_interval
from cgan.text import percent

# Of real images' accuracy, from end to end: above, the line gives the interval.
WIDE_INTERVAL = 0.05
WEAK_JUDGE_ACCURACY = 0.9  # a judge that is right on fewer real images says little of drawings


def quality_line(evaluation: Evaluation, training_s: float | None = None) -> str:
    """`Legible: 99.4 % (real images 98.6 %; odd ones are misread more often). Varied (recall): 96 % of real
    images. Weakest class: 9 (94 % as diverse as real images). No near copies. Trained in 24 s.` The word of a
    weak judge comes last."""
    parts, reason = [], evaluation.not_measurable
    if reason:
        parts.append(f"What the drawings are worth is not measurable: {reason}")
    accuracy = _beside_real(evaluation, "conditional_accuracy")
    weak = accuracy is not None and accuracy[1] < WEAK_JUDGE_ACCURACY
    if accuracy and not weak:
        parts.append(f"Legible: {_legible(evaluation.score('conditional_accuracy'), *accuracy)}")
    if weak and (pair := _beside_real(evaluation, "gan_train_accuracy")):
        of_drawings, of_images = map(percent, pair)
        part = f"A classifier trained on drawings alone is right on {of_drawings} of real images"
        parts.append(f"{part}, one trained on real images on {of_images}")
    if (pair := _beside_real(evaluation, "recall")) and pair[1]:
        value, real = pair
        parts.append(f"Varied (recall): {percent(min(value / real, 1.0), 0)} of real images")
    if not reason and (weakest := weakest_classes(evaluation)):
        label, words = weakest[0]
        parts.append(f"Weakest class: {evaluation.names[label]} ({words})")
    if pair := _beside_real(evaluation, "copies"):
        value, real = pair
        near = f"Near copies: {percent(value)} (real images {percent(real)})"
        parts.append(near if value else "No near copies")
    if accuracy and weak:
        words = _legible(evaluation.score("conditional_accuracy"), *accuracy)
        parts.append(f"By a weak judge, legible: {words}")
    if training_s:
        parts.append(f"Trained in {training_s:,.0f} s")
    return " ".join(f"{part.removesuffix('.')}." for part in parts)


def _legible(score: Score, value: float, real: float) -> str:
    low, high = score.real_interval or (0, 0)
    between = harder = ""
    if high - low > WIDE_INTERVAL:  # few held-out images say little of what real ones get
        between = f", between {100 * low:.0f} and {percent(high, 0)}"
    if value > real:
        harder = "; odd ones are misread more often"
    words = f"{percent(value)} (real images {percent(real)}{between}{harder})"
    if value and (constant := score.details.get("constant", 0.0)) > value / 2:
        words += f" (the same answer for all: {percent(constant, 0)})"
    return words


def _beside_real(evaluation: Evaluation, key: str) -> tuple[float, float] | None:
    """The value of a metric, and that of real images; None where one of them is not known."""
    score = evaluation.score(key)
    if score.value is None or score.real is None or not math.isfinite(score.value):
        return None
    return score.value, score.real


def weakest_classes(evaluation: Evaluation) -> list[tuple[int, str]]:
    """The classes that are clearly behind real images, in accuracy or diversity, the weakest first: the label
    of each, and in words in what it is further behind.

    They are behind where even the near ends of both intervals, which are at 95 % for all classes together
    (Bonferroni), are apart. So of equally good classes, however many, one is named in at most one evaluation
    of twenty.
    """
    found, z = [], joint_z(max(1, len(evaluation.classes)))
    for label, row in enumerate(evaluation.classes):
        parts = []  # what the class has of real images', at those ends, and in words
        if row.accuracy is not None and row.real_accuracy:
            asked = sum(evaluation.confusion[label])
            _, high = wilson_interval(round(row.accuracy * asked), asked, z)
            real_low, _ = wilson_interval(round(row.real_accuracy * row.heldout), row.heldout, z)
            real = f"its {row.heldout:,} held-out images {percent(row.real_accuracy)}"
            parts.append((high / real_low, f"{percent(row.accuracy)} right, {real}"))
        if row.diversity is not None and row.diversity_interval:
            reach = z / joint_z(1) * (row.diversity_interval[1] - row.diversity)
            words = f"{percent(row.diversity, 0)} as diverse as real images"
            parts.append((row.diversity + reach, words))
        if parts:
            part, words = min(parts)
            found.append((part, label, words))
    return [(label, words) for part, label, words in sorted(found) if part < 1]


def metric_values(evaluation: Evaluation) -> dict[str, float]:
    """A number for each metric; behind the distance, that of real images."""
    flat: dict[str, float] = {}
    for key in METRICS:
        score = evaluation.score(key)
        if score.value is not None:
            flat[key] = round(score.value, 5)
            if key == "fid_judge" and score.real is not None:
                flat["fid_judge_floor"] = round(score.real, 5)
    return flat


def leading_values(evaluation: Evaluation) -> dict[str, float]:
    """The three numbers that `dvc metrics diff` shows. `dvc exp show` has room for no more beside a param."""
    numbers = metric_values(evaluation)
    leads = [key for key, metric in METRICS.items() if metric.short_name and key in numbers]
    return {key: numbers[key] for key in leads[:3]}


def tracked_values(evaluation: Evaluation) -> dict[str, float]:
    """The metrics of the run's page in MLflow: one number each. The rest is in the tables."""
    return {
        METRICS[key].tracked_key: value
        for key, value in metric_values(evaluation).items()
        if key in METRICS
    }


def stated_evaluation(facts: dict[str, Any]) -> Evaluation | None:
    """The evaluation that a generator's file states, as the package's own does; None where it states none."""
    if not (quality := facts.get("quality")):
        return None
    intervals = {"conditional_accuracy": tuple(quality["conditional_accuracy_interval_95"])}
    metrics = {
        key: Score(value=value, real=quality["floors"].get(key), interval=intervals.get(key))
        for key, value in quality["metrics"].items()
        if key in METRICS
    }
    return Evaluation(metrics=metrics, context=quality["measurement_context"])


def class_table(evaluation: Evaluation) -> list[list[Any]]:
    """Each class by itself, beside real images; a header first. Empty cells where nothing is known."""
    columns = {
        "accuracy": "accuracy",
        "judge on real images": "real_accuracy",
        "held-out images": "heldout",
        "diversity, as a fraction of real images'": "diversity",
    }
    rows: list[list[Any]] = [["class", *columns]]
    for name, row in zip(evaluation.names, evaluation.classes, strict=True):
        values = (getattr(row, column) for column in columns.values())
        rows.append([name, *("" if value is None else round(value, 5) for value in values)])
    return rows
