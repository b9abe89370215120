"""Evaluations written down in short, by metric."""

from typing import Any

from cgan.evaluation import METRICS


def json_form(report: dict[str, Any]) -> dict[str, Any]:
    """What `Evaluation.of_json` reads, of a shorter form: a metric's entry stands by its key, and its classes
    are lists in it."""
    metrics = {}
    for key, metric in METRICS.items():
        if key in report:
            entry = report[key]
            details = ("constant", "heldout_nearest_median")
            interval = entry.get("interval_95")
            metrics[key] = {
                "value": entry.get("value"),
                "real": entry.get("floor"),
                "interval": metric.bounded(interval) if interval else None,
                "real_interval": entry.get("floor_interval_95"),
                "replicates": entry.get("replicates", ()),
                "details": {name: entry[name] for name in details if name in entry},
            }
    accuracy, diversity = (report.get(key, {}) for key in ("conditional_accuracy", "diversity"))
    columns = {
        "heldout": report.get("heldout_by_class"),
        "accuracy": accuracy.get("by_class"),
        "accuracy_interval": accuracy.get("interval_by_class"),
        "real_accuracy": accuracy.get("floor_by_class"),
        "diversity": diversity.get("by_class"),
        "diversity_interval": diversity.get("interval_by_class"),
    }
    known = {name: column for name, column in columns.items() if column}
    count = max(map(len, known.values()), default=0)
    same = ("confusion", "not_measurable", "class_names")
    tested = report.get("judge_on_test_set")
    if tested:
        images = {"images": tested["images"]}
        tested = {"value": tested["value"], "interval": tested["interval_95"], "details": images}
    return {
        "metrics": metrics,
        "classes": [{name: column[n] for name, column in known.items()} for n in range(count)],
        "context": report.get("measurement_context", {}),
        "judge_on_test_set": tested,
        **{key: report[key] for key in same if key in report},
    }
