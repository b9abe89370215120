"""What the reader of a flow run sees: its name, its last words, and its artifacts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from cgan.errors import CganError
from cgan.params import flatten, load_params
from flows.repro import Outcome


@dataclass(frozen=True)
class StageResult:
    stage: str
    outcome: str
    seconds: float


def training_in_words() -> str:
    """`train deconv 160 kimg`, from params.yaml."""
    try:
        train = load_params().train
    except CganError:
        return "train"
    return f"train {train.generator} {train.total_kimg:g} kimg"


def in_words(results: Sequence[StageResult]) -> str:
    """One sentence for the flow run's final state."""
    by_outcome = {
        outcome: [r.stage for r in results if r.outcome == outcome] for outcome in Outcome
    }
    ran, restored = by_outcome[Outcome.RAN], by_outcome[Outcome.RESTORED]
    words = []
    if "train" in ran:
        words.append("trained a new generator")
    elif ran:
        words.append("ran " + ", ".join(ran))
    if restored:
        words.append("restored from cache: " + ", ".join(restored))
    if not words:
        words.append("nothing to do: every stage is up to date")
    accuracy = _metrics().get("conditional_accuracy")
    if accuracy is not None:
        words.append(f"conditional accuracy {accuracy:.3f}")
    return "; ".join(words)


def _read_json(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _metrics() -> dict[str, Any]:
    """Every number of the two metrics files, by dotted name."""
    return flatten(_read_json("reports/metrics.json")) | flatten(_read_json("reports/judge.json"))


def publish(results: Sequence[StageResult]) -> None:
    """Artifacts of the flow run: what is there now, also when nothing ran."""
    create_table_artifact(
        [
            {"stage": r.stage, "what happened": r.outcome, "seconds": round(r.seconds, 1)}
            for r in results
        ],
        key="stages",
        description="What each stage did. *unchanged*: nothing it depends on changed.",
    )
    grid = Path("samples/grid.png")
    if grid.exists():
        # An artifact holds a URL: a file path would show as a broken image.
        data = base64.b64encode(grid.read_bytes()).decode()
        create_image_artifact(
            f"data:image/png;base64,{data}",
            key="sample-grid",
            description="Drawn by the generator: a row a class, a column a latent.",
        )
    if metrics := _metrics():
        create_table_artifact(
            [{"metric": name, "value": value} for name, value in metrics.items()],
            key="metrics",
            description="The generator's quality.",
        )
    if run := _read_json("models/mlflow_run.json"):
        _link(run)


def _link(run: dict[str, Any]) -> None:
    text = "The training's MLflow run: losses, previews, parameters, model."
    uri = str(run.get("tracking_uri", ""))
    if uri.startswith("http") and run.get("run_id"):
        create_link_artifact(
            f"{uri.rstrip('/')}/#/experiments/0/runs/{run['run_id']}",
            link_text="Open the MLflow run",
            key="mlflow-run",
            description=text,
        )
    else:
        create_markdown_artifact(
            f"{text}\n\nOpen it with `make ui`, experiment **{run.get('experiment')}**, run "
            f"`{run.get('run_id')}`.",
            key="mlflow-run",
            description=text,
        )
