"""What a page shows of the run: curves, metrics, classes, params, and where all of it comes from."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from cgan.metric import METRICS, Evaluation
from cgan.params.editing import nearest_preset, preset_params
from cgan.params.sections import Params, flatten
from cgan.quality.intervals import share

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
        if (value := metric.value(report)) is None:
            continue
        is_finite = math.isfinite(value)
        low, high = (metric.interval(report) if is_finite else None) or (None, None)
        words = {"name": metric.name, "meaning": metric.meaning, "better": metric.better}
        numbers = {"value": value, "low": low, "high": high, "floor": metric.floor(report)}
        rows.append({"key": key, **words, **numbers})
    return rows


def class_facts(report: Evaluation) -> list[dict[str, Any]]:
    """Each class by itself, beside what its real images get."""
    accuracy, distance, different = (
        report[key] for key in ("conditional_accuracy", "fid_judge", "different")
    )
    rows = []
    for label, right in enumerate(accuracy["by_class"]):
        measured = right is not None and math.isfinite(right)
        low, high = share(right, sum(report["confusion"][label])) if measured else (None, None)
        row = {"label": label, "accuracy": right, "low": low, "high": high}
        row |= {
            "judge": accuracy["floor_by_class"][label],
            "heldout": report["heldout_by_class"][label],
            "distance": distance["by_class"][label],
            "distance_floor": distance["floor_by_class"][label],
            "different": different["by_class"][label],
            "different_floor": different["floor_by_class"][label],
            "different_low": different["low_by_class"][label],
        }
        rows.append(row)
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
    rows = []
    for key, value in flatten(params).items():
        section, _, name = key.partition(".")
        row: dict[str, Any] = {"key": key, "value": value}
        if section == "train" and name in differing:
            row["preset"] = governed[name]
        if section == "train" and value == "auto" and fitted.get(name, value) != value:
            row["chosen"] = fitted[name]
        if section in SHOWN_SECTIONS:
            rows.append(row)
    return {"preset": preset, "rows": rows}


def lineage_facts(
    reference: dict[str, Any], csv_sha256: str, generator_sha256: str
) -> dict[str, Any]:
    """`reference`: what the stage train wrote of its run. The hashes are those of `cgan reproduce`."""
    origin = {str(key): str(value) for key, value in (reference.get("origin") or {}).items()}
    run = {key: reference.get(key) for key in ("run_id", "run_name", "experiment")}
    hashes = {"csv_sha256": csv_sha256, "generator_sha256": generator_sha256}
    return {**run, "origin": origin, **hashes}
