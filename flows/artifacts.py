"""What a flow run shows in Prefect: its final message, and its artifacts."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from cgan import project
from cgan.errors import CganError
from cgan.files import read_json
from cgan.markdown import in_markdown, table
from cgan.quality.table import quality_table, verdict
from cgan.tracking.pages import run_page
from flows.dvc import Outcome

FAILED = "failed"  # beside what DVC did


def is_unchanged(outcomes: Mapping[str, str]) -> bool:
    """Did no stage run, though the data may have been fetched again to find that out?"""
    after = {outcome for stage, outcome in outcomes.items() if stage != "download"}
    return bool(after) and not after & {Outcome.RAN, FAILED}


def in_words(outcomes: Mapping[str, str]) -> str:
    """One sentence for the flow run's final state."""
    ran = [stage for stage, outcome in outcomes.items() if outcome == Outcome.RAN]
    done = f"ran {', '.join(ran)}" if ran else ""
    if is_unchanged(outcomes):
        done = "every result was there already, nothing was trained"
    elif "train" in ran:
        done = "trained a new generator"
    return "; ".join(filter(None, [done, _evaluation()[0]]))


def publish(outcomes: Mapping[str, str]) -> None:
    """The artifact `run`: what is there now, also when nothing ran."""
    stages = table(("stage", "what happened"), list(outcomes.items()))
    quality = _evaluation()[1]
    numbers = table(quality[0], quality[1:], 3) if quality else ""
    _show("run", stages, _mlflow_run(), _grid(), numbers)


def publish_verdict() -> None:
    _show("verdict", project.GATE_TEXT.read_text(encoding="utf-8"), _mlflow_run(), _grid())


def _show(key: str, *parts: str) -> None:
    create_markdown_artifact("\n\n".join(filter(None, parts)), key=key)


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is none, as in a run of some stages."""
    with contextlib.suppress(CganError):
        return read_json(path)
    return {}


def _evaluation() -> tuple[str, list[list[Any]]]:
    """Its verdict and its table; empty where there is none, or that of another version."""
    with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError):
        if report := _read(project.EVALUATION):
            return verdict(report), quality_table(report)
    return "", []


def _grid() -> str:
    """The drawn grid as Markdown, with its bytes in it: a page would not find a file.

    Prefect's image artifact would have all these bytes as a link's text below it.
    """
    if not project.GRID.is_file():
        return ""
    content = base64.b64encode(project.GRID.read_bytes()).decode()
    return f"![A row for each class](data:image/png;base64,{content})"


def _mlflow_run() -> str:
    """The run that made the generator, and its page: links, if a server is known that shows them."""
    run = _read(project.RUN_REFERENCE)
    if not run.get("run_id"):
        return ""
    # `make up` serves the store that the stages write to as a file.
    uri = os.environ.get("CGAN_MLFLOW_PAGE") or str(run.get("tracking_uri") or "")
    if not uri.startswith("http"):
        name = in_markdown(run.get("run_name"))
        return f"`make ui` shows the MLflow run **{name}**, id `{run['run_id']}`."
    place = (uri, str(run.get("experiment_id") or 0), str(run["run_id"]))
    page = run_page(*place, project.RUN_PAGE.name)
    return f"[The MLflow run]({run_page(*place)}) · [the page of the run]({page})"
