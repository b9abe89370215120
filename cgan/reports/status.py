"""`cgan status`: who is champion, what the gate decided last and why, what was trained last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cgan.errors import printable
from cgan.params.reading import load_params
from cgan.quality.table import METRICS
from cgan.registry.client import open_registry
from cgan.registry.history import CHAMPION, SUMMARY
from cgan.reports.sites import mlflow_site
from cgan.tracking.pages import run_page
from cgan.tracking.store import experiment_name

TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
SERVER_S = 3  # that MLflow's server has for an answer


def status(root: Path, console: Console) -> None:
    """Print it. Raises CganError where there is no project, or its store cannot be used."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_S))
    for name, words in _rows(root):
        shown = Text(f"{name:15}", "bold cyan").append(printable(words))
        console.print(shown, soft_wrap=True)


def make_console() -> Console:
    return Console(highlight=False)


def _rows(root: Path) -> Iterator[tuple[str, str]]:
    params, site = load_params(root / "params.yaml"), mlflow_site(root)
    with open_registry(params.gate.model) as registry:
        client, versions = registry.client, registry.versions()
        champion = next((each for each in versions if CHAMPION in each.aliases), None)
        if champion:
            run = client.get_run(champion.run_id)
            yield "Champion", f"{champion.reign or f'version {champion.number}'} · {_trained(run)}"
            yield "", _numbers(run)
        else:
            yield "Champion", "none yet: `cgan gate` makes the first"
        for last in versions[:1]:
            words = f"{last.verdict or 'not judged yet'} · {last.tags.get(SUMMARY, '')}"
            yield "Verdict", f"version {last.number} · {words}"
        experiment = client.get_experiment_by_name(experiment_name(params.tracking.experiment))
        ids = [experiment.experiment_id] if experiment else []
        for run in client.search_runs(ids, TRAINING, max_results=1) if ids else []:
            tags, run_id = run.data.tags, run.info.run_id
            changes = " with changes" if tags.get("git.dirty") == "true" else ""
            commit = f"commit {tags.get('mlflow.source.git.commit', '')[:8]}{changes}"
            words = f"{run.info.run_name} · {run.info.status} · {_trained(run)} · {commit}"
            yield "Last training", words
            yield "", _numbers(run)
            page = run_page(site, run.info.experiment_id, run_id)
            yield "", page if site else f"run {run_id}: `make ui` shows it"
            if run_id not in [version.run_id for version in versions]:
                yield "", "not judged yet: `cgan gate`"


def _trained(run: Any) -> str:
    return f"trained {datetime.fromtimestamp(run.info.start_time / 1000, UTC):%d %b %H:%M} UTC"


def _numbers(run: Any) -> str:
    """Its own, those for which a screen has room; `cgan report` has each in plain words."""
    measured = {key: run.data.metrics.get(f"quality/{key}") for key in METRICS}
    known = {key: value for key, value in measured.items() if value is not None}
    numbers = [f"{METRICS[k].name} {v:.4g}" for k, v in known.items() if METRICS[k].on_screen]
    return " · ".join(numbers) or "not evaluated yet: `dvc repro` does it"
