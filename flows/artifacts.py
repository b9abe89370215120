"""What a flow run shows in Prefect: its final message, and its artifacts."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from cgan import project
from cgan.errors import CganError
from cgan.files import read_json
from cgan.markdown import in_markdown, table
from cgan.quality.table import quality_table, verdict
from cgan.store.pages import run_page
from flows.dvc import Outcome

DESCRIPTIONS = {
    "run": "*unchanged*: a stage whose inputs are those of last time. *restored from cache*: it ran with "
    "these inputs before. *real images*: what a perfect generator would get.",
    "verdict": "Is it good enough, and better? Why?",
    "reevaluation": "The champion on the data of today.",
}


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
    ran = [r.stage for r in results if r.outcome == Outcome.RAN]
    restored = [r.stage for r in results if r.outcome == Outcome.RESTORED]
    words = []
    if is_unchanged(results):
        words.append("every result was there already, nothing was trained")
    else:
        if ran:
            words.append("trained a new generator" if "train" in ran else f"ran {', '.join(ran)}")
        if restored:
            words.append(f"restored {', '.join(restored)} from cache")
    words.append(_evaluation()[0])
    return "; ".join(filter(None, words))


def publish(results: Sequence[StageResult], judged: bool) -> None:
    """The artifacts of a flow run: what is there now, also when nothing ran."""
    rows = [(r.stage, r.outcome, f"{r.seconds:.1f}") for r in results]
    parts = [table(("stage", "what happened", "seconds"), rows), _mlflow_run(), _grid()]
    if quality := _evaluation()[1]:
        parts.append(table(quality[0], quality[1:], 2))
    _show("run", *parts)
    if judged:
        _show("verdict", project.GATE_TEXT.read_text(encoding="utf-8"), _mlflow_run(), _grid())


def publish_reevaluation() -> None:
    with contextlib.suppress(FileNotFoundError):  # it ended before it had a result
        _show("reevaluation", project.REEVALUATION_TEXT.read_text(encoding="utf-8"))


def _show(key: str, *parts: str) -> None:
    text = "\n\n".join(filter(None, parts))
    create_markdown_artifact(text, key=key, description=DESCRIPTIONS[key])


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is none, as in a run of some stages."""
    with contextlib.suppress(CganError):
        return read_json(path)
    return {}


def _evaluation() -> tuple[str, list[list[Any]]]:
    """Its verdict and its table; empty where there is none, or a foreign one."""
    with contextlib.suppress(CganError, KeyError, TypeError, AttributeError, ValueError):
        report = read_json(project.EVALUATION)
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
