"""What a flow run shows in Prefect: its final message, and its artifacts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from cgan import project
from cgan.errors import CganError
from cgan.markdown import in_markdown
from cgan.params.sections import flatten
from cgan.quality.table import METRICS
from cgan.store.pages import run_page
from flows.dvc import Outcome

PLAIN_WORDS = {
    **{
        f"quality.{key}": f"{metric.name}: {metric.meaning}; {metric.better} is better"
        for key, metric in METRICS.items()
    },
    "quality.fid_judge_floor": "the same of real training images: what a perfect generator has",
    "judge.accuracy": "share of held-out real images that the judge gets right",
    "judge.accuracy_low": "lower end of its 95 % interval",
    "judge.accuracy_high": "upper end of its 95 % interval",
    "judge.heldout_images": "real images that the judge was tested on",
}


CHANGE = "*change*: against the champion, both drawn and judged anew by one judge on one set. "


@dataclass(frozen=True)
class StageResult:
    stage: str
    outcome: str
    seconds: float


def is_unchanged(results: Sequence[StageResult]) -> bool:
    """Did no stage run, though the data may have been fetched again to find that out?"""
    after = [r.outcome for r in results if r.stage != "download"]
    return bool(after) and not {Outcome.RAN, "failed"}.intersection(after)


def in_words(results: Sequence[StageResult]) -> str:
    """One sentence for the flow run's final state."""
    done = {outcome: [r.stage for r in results if r.outcome == outcome] for outcome in Outcome}
    words = []
    if is_unchanged(results):
        words.append("every result was there already, nothing was trained")
    else:
        ran, restored = done[Outcome.RAN], done[Outcome.RESTORED]
        if ran:
            words.append("trained a new generator" if "train" in ran else f"ran {', '.join(ran)}")
        if restored:
            words.append(f"restored {', '.join(restored)} from cache")
    accuracy = _metrics().get("quality.conditional_accuracy")
    if isinstance(accuracy, float):
        words.append(f"conditional accuracy {accuracy:.3f}")
    return "; ".join(words)


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none, or it is damaged, or nested too deeply to be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _metrics() -> dict[str, Any]:
    """Every number of the two metrics files, by dotted name."""
    found: dict[str, Any] = {}
    for path in (project.METRICS, project.JUDGE_METRICS):
        found |= flatten(_read_json(path))
    return found


def read_verdict() -> dict[str, Any]:
    """What `cgan gate` wrote. Raises CganError if it is not what the flow needs."""
    found = _read_json(project.GATE_REPORT)
    if not all(isinstance(found.get(key), str) for key in ("verdict", "summary")):
        raise CganError(f"{project.GATE_REPORT}: no verdict in it, though `cgan gate` ended well.")
    return found


def reevaluation_summary() -> str:
    """What `cgan reevaluate` found, in a sentence, when it ended well."""
    return str(_read_json(project.REEVALUATION_REPORT).get("summary", "the champion is healthy"))


def publish(results: Sequence[StageResult], verdict: Mapping[str, Any] | None = None) -> None:
    """The artifacts of a flow run: what is there now, also when nothing ran.

    A server that is away is a warning: the stages have done their work.
    """
    with _server_may_be_away():
        _stages(results)
        _sample_grid()
        _metrics_table(verdict or {})
        if verdict:
            _verdict_page(verdict)
        _mlflow_run()
        _run_page()


def publish_reevaluation() -> None:
    with _server_may_be_away():
        if text := _read_text(project.REEVALUATION_TEXT):
            create_markdown_artifact(
                text,
                key="reevaluation",
                description="The champion on the data of today.",
            )


@contextlib.contextmanager
def _server_may_be_away() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        get_run_logger().warning(
            "The Prefect server is away (%s): artifacts are missing from this run.", error
        )


def _stages(results: Sequence[StageResult]) -> None:
    create_table_artifact(
        [
            {"stage": r.stage, "what happened": r.outcome, "seconds": round(r.seconds, 1)}
            for r in results
        ],
        key="stages",
        description="What DVC did with each stage. *unchanged*: its inputs are those of last time. "
        "*restored from cache*: it ran with these inputs before.",
    )


def _grid() -> str:
    """The drawn grid as Markdown, with its bytes in it: a page would not find a file.

    Prefect's image artifact would have all these bytes as a link's text below it.
    """
    if not project.GRID.is_file():
        return ""
    content = base64.b64encode(project.GRID.read_bytes()).decode()
    return f"![A row for each class](data:image/png;base64,{content})"


def _sample_grid() -> None:
    if grid := _grid():
        create_markdown_artifact(
            grid,
            key="sample-grid",
            description="Drawn by the generator that is there now, a row for each class.",
        )


def _verdict_page(verdict: Mapping[str, Any]) -> None:
    """The gate's report with the drawings and a link to the run."""
    text = _read_text(project.GATE_TEXT) or str(verdict.get("summary", ""))
    if link := _mlflow_link():
        text += f"\n[Open the MLflow run]({link})\n"
    if grid := _grid():
        text += f"\n## Drawings\n\n{grid}\n"
    create_markdown_artifact(text, key="verdict", description="Is it good enough, and better? Why?")


def _metrics_table(verdict: Mapping[str, Any]) -> None:
    changes = _changes(verdict.get("comparison"))
    if metrics := _metrics():
        create_table_artifact(
            [
                {
                    "metric": name,
                    "value": round(value, 4) if isinstance(value, float) else value,
                    **({"change": changes.get(name, "")} if changes else {}),
                    "in plain words": PLAIN_WORDS.get(name, ""),
                }
                for name, value in metrics.items()
            ],
            key="metrics",
            description="How good the drawings are, through the eyes of the judge: a class network "
            f"trained on the real images. {CHANGE if changes else ''}"
            "Sample counts and seeds: reports/evaluation.json.",
        )


def _changes(rows: Any) -> dict[str, str]:
    """`+0.0012 (better)`, `+0.0003 (within chance)` by metric: beyond chance or not is the gate's word."""
    words = {True: "better", False: "worse", None: "within chance"}
    return {
        f"quality.{row['metric']}": f"{row['difference']:+.4g} ({words[row['better']]})"
        for row in rows or ()
    }


def _mlflow_link(artifact: str = "") -> str:
    """The page of the run that made the generator, if a server is known that shows it."""
    run = _read_json(project.RUN_REFERENCE)
    # `make up` serves the store that the stages write to as a file.
    uri = os.environ.get("CGAN_MLFLOW_PAGE") or str(run.get("tracking_uri") or "")
    if not uri.startswith("http") or not run.get("run_id"):
        return ""
    # The page finds a run by its id, whichever experiment stands there; its way back needs the right one.
    return run_page(uri, str(run.get("experiment_id") or 0), str(run["run_id"]), artifact)


def _mlflow_run() -> None:
    run = _read_json(project.RUN_REFERENCE)
    text = "The MLflow run that made the generator: losses, previews, parameters, metrics, model."
    if link := _mlflow_link():
        create_link_artifact(
            link, link_text="Open the MLflow run", key="mlflow-run", description=text
        )
    elif run.get("run_id"):
        create_markdown_artifact(
            f"`make ui` opens MLflow. There it is the run **{run.get('run_name')}** of the "
            f"experiment **{run.get('experiment')}**, id `{run['run_id']}`.",
            key="mlflow-run",
            description=text,
        )


def _run_page() -> None:
    """The file that the stage page made: in MLflow, where a server shows it, or on this machine's disk."""
    if not project.RUN_PAGE.is_file():
        return
    text = "The generator to play with, and all there is to know of its training, as one HTML file."
    if link := _mlflow_link(project.RUN_PAGE.name):
        create_link_artifact(
            link, link_text="Open the page of the run", key="run-page", description=text
        )
    else:
        path = in_markdown(project.RUN_PAGE.resolve())
        create_markdown_artifact(
            f"It opens in any browser: {path}", key="run-page", description=text
        )
