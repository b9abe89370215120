"""What the pipeline made, on one screen: quality, pictures, where to look next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.project import EVALUATION

METRICS = Path("reports/metrics.json")
JUDGE = Path("reports/judge.json")
GRID = Path("samples/grid.png")
RUN = Path("models/mlflow_run.json")

# key of metrics.json → (words, what real images get: key of evaluation.json, better is)
LINES = {
    "conditional_accuracy": ("drawn digits show the class asked for", "higher"),
    "worst_class_accuracy": ("… of the worst class", "higher"),
    "fid_judge": ("Fréchet distance in the judge's features", "lower"),
    "recall": ("recall: part of the real variety that is drawn", "higher"),
    "coverage": ("coverage: real images with a drawing nearby", "higher"),
    "gan_train_accuracy": ("a class network that saw drawings only is right on reals", "higher"),
    "copies": ("drawings closer to a training image than 99 % of reals", "lower"),
}


def summary() -> str:
    """Raises CganError while the pipeline has not run."""
    try:
        return _summary()
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CganError(
            f"{METRICS}, {EVALUATION} or {JUDGE}: not what this version writes. Make them again: "
            "`dvc repro --force train_judge evaluate`."
        ) from None


def _summary() -> str:
    quality = _read(METRICS)["quality"]
    floors = _floors(_read(EVALUATION))
    passport = _read(EVALUATION)["passport"]
    judge = _read(JUDGE)["judge"]
    rows = [("metric", "drawn", "real", "")]
    for key, (words, better) in LINES.items():
        if key in quality:
            rows.append((words, f"{quality[key]:.4g}", floors.get(key, ""), f"{better} is better"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = "\n".join(
        f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip()
        for a, b, c, d in rows
    )
    note = (
        f"  {passport['drawn_images']:,} drawings × {passport['draws']}, judged by a class network "
        f"that is right on {judge['accuracy']:.2%} of {judge['heldout_images']:,} held-out images"
    )
    return "\n".join(
        [
            "Quality of the generator, next to real images:",
            table,
            note,
            "",
            f"  sample grid   {GRID}",
            f"  MLflow run    {_run()}",
            "  browse runs   make ui, then open http://127.0.0.1:5000",
            "  draw digits   .venv/bin/cgan draw 2024 --seed 7 --out year.png",
        ]
    )


def _floors(report: dict[str, Any]) -> dict[str, str]:
    floors = {
        "conditional_accuracy": report["conditional_accuracy"]["floor"],
        "fid_judge": report["fid_judge"]["floor"],
        "recall": report["manifold"]["floor"]["recall"],
        "coverage": report["manifold"]["floor"]["coverage"],
        "copies": 0.01,
    }
    if "gan_train" in report:
        floors["gan_train_accuracy"] = report["gan_train"]["floor"]
    return {key: f"{value:.4g}" for key, value in floors.items()}


def _run() -> str:
    try:
        run = json.loads(RUN.read_text())
        return f"{run['run_name']} ({run['run_id'] or 'not delivered yet: cgan track flush'})"
    except (OSError, ValueError, KeyError, TypeError):
        return "none"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except OSError:
        raise CganError(f"{path}: not found. Run the pipeline first: `make repro`.") from None
    except (ValueError, TypeError, RecursionError):
        raise CganError(f"{path}: not valid JSON. Make it again: `dvc repro evaluate`.") from None
