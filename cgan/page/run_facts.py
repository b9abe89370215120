"""What a page shows of the run: curves, metrics, classes, params, and where all of it comes from."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgan.metric import METRICS, Evaluation
from cgan.params.editing import nearest_preset, preset_params
from cgan.params.sections import Params, flatten

POINTS = 600  # of a curve
CONFUSION_CLASSES = 40  # more, and the most frequent mistakes are listed instead
MISTAKES = 60
SHOWN_SECTIONS = ("data", "validate", "preprocess", "train_judge", "train", "evaluate", "render")


def curve(path: Path) -> dict[str, Any]:
    """A CSV of numbers by step, every n-th row of a long one."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *lines = csv.reader(file)
    every = -(-len(lines) // POINTS) or 1
    shown = lines[(len(lines) - 1) % every :: every]  # the last is among them
    rows = [[float(value) for value in line] for line in shown]
    return {"columns": columns, "rows": rows, "every": every}


def metrics_facts(report: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for key, metric in METRICS.items():
        if (value := metric.value(report)) is None or not metric.in_tables:
            continue
        low, high = (metric.interval(report) if math.isfinite(value) else None) or (None, None)
        meaning = f"{metric.meaning[0].upper()}{metric.meaning[1:]}. {metric.better.capitalize()} is better."
        words = {"key": key, "name": metric.name, "meaning": meaning}
        rows.append(
            words | {"value": value, "low": low, "high": high, "floor": metric.floor(report)}
        )
    return rows


def class_facts(report: Evaluation, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Each class by itself, beside what its real images get. `counts`: of images."""
    accuracy, distance, diversity = (
        report[key] for key in ("conditional_accuracy", "fid_judge", "diversity")
    )
    columns = {
        "accuracy": accuracy["by_class"],
        "judge": accuracy["floor_by_class"],
        "heldout": report["heldout_by_class"],
        "distance": distance["by_class"],
        "distance_floor": distance["floor_by_class"],
        "excess_interval": distance["excess_interval_by_class"],
        "diversity": diversity["by_class"],
        "diversity_interval": diversity["interval_by_class"],
        "images": counts,
        "asked": [sum(row) for row in report["confusion"]],
        "right": [row[label] for label, row in enumerate(report["confusion"])],
    }
    rows = []
    for label in range(len(report["confusion"])):
        row = {"label": label} | {key: column[label] for key, column in columns.items()}
        measured = row["accuracy"] is not None and math.isfinite(row["accuracy"])
        low, high = (measured and accuracy["interval_by_class"][label]) or (None, None)
        rows.append(row | {"low": low, "high": high})
    return rows


def confusion_facts(report: Evaluation) -> dict[str, Any]:
    """The matrix, or where it is too large to look at, its largest values off the diagonal."""
    matrix = report["confusion"]
    mistakes = [
        (count, asked, seen)
        for asked, row in enumerate(matrix)
        for seen, count in enumerate(row)
        if count and asked != seen
    ]
    mistakes.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
    shown = [[asked, seen, count] for count, asked, seen in mistakes[:MISTAKES]]
    small = len(matrix) <= CONFUSION_CLASSES
    return {"matrix": matrix if small else None, "mistakes": shown}


def params_facts(params: Params, fitted: dict[str, Any]) -> dict[str, Any]:
    """Every param that the run's stages read. `fitted`: the params that the training really had."""
    preset, differing = nearest_preset(params.train)
    governed = preset_params(preset) if preset else {}
    others = {f"train.{name}": governed[name] for name in differing}
    chosen = {f"train.{name}": value for name, value in fitted.items() if value != "auto"}
    rows = [
        {
            "key": key,
            "value": value,
            "chosen": chosen.get(key, "") if value == "auto" else "",
            "preset": others.get(key, ""),
        }
        for key, value in flatten(params).items()
        if key.partition(".")[0] in SHOWN_SECTIONS
    ]
    return {"preset": preset, "rows": rows}


def lineage_facts(
    reference: dict[str, Any], csv_sha256: str, generator_sha256: str
) -> dict[str, Any]:
    """`reference`: what the stage train wrote of its run. The hashes are those of `cgan reproduce`."""
    origin = {str(key): str(value) for key, value in (reference.get("origin") or {}).items()}
    run = {key: reference.get(key) for key in ("run_id", "run_name", "experiment")}
    hashes = {"csv_sha256": csv_sha256, "generator_sha256": generator_sha256}
    return {**run, "origin": origin, **hashes}
