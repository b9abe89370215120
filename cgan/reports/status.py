"""`cgan status`: who is champion, what the gate decided last and why, what was trained last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cgan.errors import CganError, printable
from cgan.files import read_json
from cgan.metric import METRICS
from cgan.params.reading import load_params
from cgan.project import CSV_SOURCE
from cgan.registry.client import CHAMPION, SUMMARY, open_registry
from cgan.tracking.store import TIMEOUT, experiment_name

TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"


def status(root: Path, console: Console) -> None:
    """Print it; of a store that cannot be used, why."""
    os.environ.setdefault(TIMEOUT, "3")  # seconds
    for source in (_data, _store):
        try:
            for name, words in source(root):
                shown = Text(f"{name:15}", "bold cyan").append(printable(words))
                console.print(shown, soft_wrap=True)
        except (CganError, KeyError, TypeError, ValueError) as error:  # a damaged file too
            console.print(f"unknown: {error}", markup=False, soft_wrap=True)


def _data(root: Path) -> Iterator[tuple[str, str]]:
    data = read_json(root / CSV_SOURCE) if (root / CSV_SOURCE).exists() else None
    words = data and f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    yield "Data", words or "not fetched yet: `make repro` or `dvc repro`"


def _store(root: Path) -> Iterator[tuple[str, str]]:
    params = load_params(root / "params.yaml")
    with open_registry(params.gate.model) as registry:
        client, versions = registry.client, registry.versions()
        champion = next((each for each in versions if CHAMPION in each.aliases), None)
        if champion:
            run = client.get_run(champion.run_id)
            yield "Champion", f"{champion.reign} · {_trained(run)}"
            yield "", _numbers(run)
        else:
            yield "Champion", "none yet: `cgan gate` makes the first"
        if versions:
            last, why = versions[0], versions[0].tags.get(SUMMARY, "")
            yield "Verdict", f"version {last.number} · {last.verdict or 'not judged yet'} · {why}"
        experiment = client.get_experiment_by_name(experiment_name(params.tracking.experiment))
        ids = [experiment.experiment_id] if experiment else []
        for run in client.search_runs(ids, TRAINING, max_results=1) if ids else []:
            tags, run_id = run.data.tags, run.info.run_id
            commit = tags.get("mlflow.source.git.commit", "")[:8]
            changes = " with changes" * (tags.get("git.dirty") == "true")
            made = f"{run.info.status} · {_trained(run)} · commit {commit}{changes}"
            yield "Last training", f"{run.info.run_name} · {made}"
            yield "", _numbers(run)
            judged = run_id in [version.run_id for version in versions]
            yield "", f"run {run_id}{'' if judged else ', not judged yet: `cgan gate`'}"


def _trained(run: Any) -> str:
    return f"trained {datetime.fromtimestamp(run.info.start_time / 1000, UTC):%d %b %H:%M} UTC"


def _numbers(run: Any) -> str:
    """Its own, those for which a screen has room; `cgan report` has each in plain words."""
    metrics, on_screen = run.data.metrics, [each for each in METRICS.values() if each.on_screen]
    numbers = [(each.name, metrics.get(f"quality/{each.key}")) for each in on_screen]
    shown = [f"{name} {value:.4g}" for name, value in numbers if value is not None]
    return " · ".join(shown) or "not evaluated yet: `dvc repro` does it"
