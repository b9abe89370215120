"""Facts of the run for a page: curves, metrics, classes, params, and where all of it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cgan.evaluation import Evaluation
from cgan.params.presets import nearest_preset, preset_params
from cgan.params.sections import Params, flatten

if TYPE_CHECKING:
    import pandas as pd

MAX_CURVE_POINTS = 600
MAX_MATRIX_CLASSES = 40  # with more, the most frequent mistakes are listed instead
MAX_MISTAKES = 60
SHOWN_SECTIONS = ("data", "validate", "preprocess", "train_judge", "train", "evaluate", "render")


def curve(table: pd.DataFrame) -> dict[str, Any]:
    """Numbers by step, every n-th row of a long table."""
    every = math.ceil(len(table) / MAX_CURVE_POINTS) or 1
    first = (len(table) - 1) % every  # so that the last is among them
    rows = table[first::every].to_numpy(float).tolist()
    return {"columns": [*table.columns], "rows": rows, "every": every}


def class_facts(evaluation: Evaluation, counts: Sequence[int] | None) -> list[dict[str, Any]]:
    """Each class by itself, beside its real images. `counts`: of images, where they are known."""
    rows = []
    for label, row in enumerate(evaluation.classes):
        predictions = evaluation.confusion[label]
        measured = row.accuracy is not None and math.isfinite(row.accuracy)
        low, high = (row.accuracy_interval if measured else None) or (None, None)
        rows.append(
            {
                "label": label,
                "accuracy": row.accuracy,
                "low": low,
                "high": high,
                "judge": row.real_accuracy,
                "heldout": row.heldout,
                "distance": row.distance,
                "real_distance": row.real_distance,
                "excess_interval": row.excess_interval,
                "diversity": row.diversity,
                "diversity_interval": row.diversity_interval,
                "images": counts[label] if counts else None,
                "asked": sum(predictions),
                "right": predictions[label],
            }
        )
    return rows


def confusion_facts(evaluation: Evaluation) -> dict[str, Any]:
    """The matrix, or where it is too large to look at, its largest values off the diagonal."""
    matrix = evaluation.confusion
    mistakes = [
        (count, asked, predicted)
        for asked, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and asked != predicted
    ]
    mistakes.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
    shown = [[asked, predicted, count] for count, asked, predicted in mistakes[:MAX_MISTAKES]]
    small = len(matrix) <= MAX_MATRIX_CLASSES
    return {"matrix": matrix if small else None, "mistakes": shown}


def params_facts(params: Params, fitted: dict[str, Any]) -> dict[str, Any]:
    """Every param that the run's stages read. `fitted`: the params that the training really had."""
    preset, differing = nearest_preset(params.train)
    values = preset_params(preset)
    others = {f"train.{name}": values[name] for name in differing}
    chosen = {f"train.{name}": value for name, value in fitted.items() if value != "auto"}
    rows = [
        {
            "key": key,
            "value": value,
            "chosen": chosen.get(key, "") if value == "auto" else "",
            "preset": others.get(key, ""),
        }
        for key, value in flatten(params.model_dump(by_alias=True)).items()
        if key.partition(".")[0] in SHOWN_SECTIONS
    ]
    return {"preset": preset, "rows": rows}


def lineage_facts(
    training: Mapping[str, Any], csv_sha256: str, generator_sha256: str
) -> dict[str, Any]:
    """`training`: its record. The hashes are those of `cgan reproduce`."""
    origin = {str(key): str(value) for key, value in (training.get("origin") or {}).items()}
    run = {key: training.get(key) for key in ("run_id", "run_name", "experiment")}
    hashes = {"csv_sha256": csv_sha256, "generator_sha256": generator_sha256}
    return {**run, "origin": origin, **hashes}
