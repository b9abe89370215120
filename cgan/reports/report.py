"""What the pipeline made, on one screen: quality, pictures, where to look next."""

from __future__ import annotations

import json
from typing import Any

from cgan.errors import CganError
from cgan.files import read_json
from cgan.project import EVALUATION, GRID, JUDGE_METRICS, RUN_PAGE, RUN_REFERENCE, project_root
from cgan.project import METRICS as NUMBERS
from cgan.quality.table import METRICS, floors, verdict
from cgan.reports.status_sources import mlflow_site
from cgan.store.pages import run_page

UI = "http://127.0.0.1:5000"  # of `make ui`


def summary() -> str:
    """Raises CganError while the pipeline has not run."""
    if not NUMBERS.is_file():
        raise CganError(f"{NUMBERS}: not found. Run the pipeline first: `make repro`.")
    try:
        return _summary()
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CganError(
            f"{NUMBERS}, {EVALUATION} or {JUDGE_METRICS}: not what this version writes. Make them again: "
            "`dvc repro --force train_judge evaluate`."
        ) from None


def _summary() -> str:
    quality = read_json(NUMBERS)["quality"]
    run = _reference()
    evaluation = read_json(EVALUATION)
    real, passport = floors(evaluation), evaluation["passport"]
    judge = read_json(JUDGE_METRICS)["judge"]
    rows = [("metric", "drawn", "real", "better", "meaning")]
    for key, metric in METRICS.items():
        if metric.on_screen and key in quality:
            floor = f"{real[key]:.4g}" if key in real else ""
            rows.append((metric.name, f"{quality[key]:.4g}", floor, metric.better, metric.meaning))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = "\n".join(
        f"  {name:<{widths[0]}}  {drawn:>{widths[1]}}  {floor:>{widths[2]}}  {better:<{widths[3]}}  {meaning}"
        for name, drawn, floor, better, meaning in rows
    )
    note = (
        f"  {passport['drawn_images']:,} drawings × {passport['draws']}, judged by a class network "
        f"that is right on {judge['accuracy']:.2%} of {judge['heldout_images']:,} held-out images"
    )
    return "\n".join(
        [
            f"{run.get('run_name', 'This generator')}: {verdict(evaluation, run.get('training_s'))}",
            "",
            "Quality of the generator, next to real images:",
            table,
            note,
            "",
            f"  its page      {RUN_PAGE}: open it in a browser; it needs no server",
            f"  sample grid   {GRID}",
            *_run(run),
            "  draw digits   .venv/bin/cgan draw 2024 --seed 7",
            "  compare later git commit -m 'My results' dvc.lock; then dvc metrics diff, dvc plots diff",
        ]
    )


def _reference() -> dict[str, Any]:
    """What the training wrote of its run; empty where there is none."""
    try:
        return dict(json.loads(RUN_REFERENCE.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _run(run: dict[str, Any]) -> list[str]:
    """The run's name, and where a browser finds its page."""
    if "run_name" not in run:
        return ["  MLflow run    none"]
    if not run.get("run_id"):
        return [f"  MLflow run    {run['run_name']}, not delivered yet: cgan track flush"]
    site = mlflow_site(project_root())
    page = run_page(site or UI, str(run.get("experiment_id") or 0), run["run_id"])
    return [
        f"  MLflow run    {run['run_name']}",
        f"  in MLflow     {'' if site else 'make ui, then '}{page}",
    ]
