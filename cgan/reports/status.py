"""`cgan status`: who is served, what was trained and judged last, and what runs, on one screen.

The project's files, its MLflow store and Prefect's API are asked, each server for seconds only. What is
missing is said in words. Nothing is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cgan import git
from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.reading import load_params
from cgan.project import CSV_SOURCE
from cgan.quality.table import METRICS
from cgan.registry.client import open_registry
from cgan.registry.history import CHAMPION, REEVALUATION, SUMMARY
from cgan.reports.status_sources import line, mlflow_site, prefect, services, when
from cgan.run.records import count_waiting, waiting
from cgan.store.address import experiment_name, reason_of
from cgan.store.pages import run_page

TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
COLOURS = {
    "green": r"(?i)\b(promoted|passed|healthy|completed|finished|online|runs)\b",
    "bold red": r"(?i)\b(blocked|drifted|degraded|failed|crashed|killed|offline|not run|paused|unknown)\b",
}
WIDTH = 15  # of the names of rows

Rows = Iterator[tuple[str, str]]  # a row's name, at its first line only; a line


def status(root: Path, console: Console) -> None:
    """Print the screen. Raises CganError outside of a project."""
    if not (root / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no cgan project: there is no dvc.yaml. Go to the project's top folder first."
        )
    for name, ask in ROWS.items():
        try:
            for row, words in ask(root):
                _print(console, row, words)
        except Exception as error:  # a store's client raises anything; a file may have any shape
            own = isinstance(error, CganError)
            why = str(error) if own else f"{type(error).__name__}: {reason_of(error)}"
            _print(console, name, f"unknown: {why}")


def make_console() -> Console:
    return Console(highlight=False)


def _print(console: Console, row: str, words: str) -> None:
    """A line that is not broken, for it may hold an address; foreign text without what a terminal would
    obey."""
    shown = Text("".join(letter if letter.isprintable() else " " for letter in words).strip())
    for style, states in COLOURS.items():
        shown.highlight_regex(states, style)
    console.print(Text(row.ljust(WIDTH), "bold cyan").append(shown), soft_wrap=True)


def _project(root: Path) -> Rows:
    place = "not in git"
    with contextlib.suppress(git.GitError):
        source = git.source(root)
        changed = f", changed files: {len(source.changed)}" if source.changed else ""
        place = f"{source.branch} {source.commit[:8]}{changed}"
    yield "Project", line(place, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", root)


def _store(root: Path) -> Rows:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    params, site = load_params(root / "params.yaml"), mlflow_site(root)
    name = experiment_name(params.tracking.experiment)
    with open_registry(params.gate.model) as registry:
        client, versions = registry.client, registry.versions()
        champion = next((each for each in versions if CHAMPION in each.aliases), None)
        if champion:
            tags, run = champion.tags, client.get_run(champion.run_id)
            yield "Champion", line(champion.reign or f"version {champion.number}", _started(run))
            yield "", _numbers(run)
            drift = [tags.get(REEVALUATION + key, "") for key in ("verdict", "time", "summary")]
            told = line(drift[0], when(drift[1]), drift[2])
            yield "Drift", told or "never checked: `cgan reevaluate`"
        else:
            yield "Champion", "none yet: `cgan gate` makes the first"
        for version in versions[:1]:
            words = version.verdict or "not judged yet: `cgan gate`"
            yield "Verdict", line(f"version {version.number}", words, version.tags.get(SUMMARY))
        experiment = client.get_experiment_by_name(name)
        ids = [experiment.experiment_id] if experiment else []
        runs = client.search_runs(ids, TRAINING, max_results=1) if ids else []
        if not runs:
            yield "Last training", "none in MLflow yet: `make repro` trains"
        for run in runs:
            tags, run_id = run.data.tags, run.info.run_id
            changes = " with changes" if tags.get("git.dirty") == "true" else ""
            commit = f"commit {tags.get('mlflow.source.git.commit', '')[:8]}{changes}"
            yield "Last training", line(run.info.run_name, run.info.status, _started(run), commit)
            yield "", _numbers(run)
            page = run_page(site, run.info.experiment_id, run_id)
            yield "", page if site else f"run {run_id}: `make ui` shows it"
            if run_id not in [version.run_id for version in versions]:
                yield "", "not judged yet: `cgan gate`"


def _started(run: Any) -> str:
    return f"trained {when(run.info.start_time / 1000)}"


def _numbers(run: Any) -> str:
    """Its own, those for which a screen has room; `cgan report` has each in plain words."""
    measured = run.data.metrics
    numbers = [
        f"{metric.name} {measured[f'quality/{key}']:.4g}"
        for key, metric in METRICS.items()
        if metric.on_screen and f"quality/{key}" in measured
    ]
    return line(*numbers) or "not evaluated yet: `dvc repro` does it"


def _data(root: Path) -> Rows:
    if not (root / CSV_SOURCE).exists():
        yield "Data", "not fetched yet: `make repro`"
        return
    data = read_json(root / CSV_SOURCE)
    what = f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    yield "Data", line(what, f"sha256 {data['sha256'][:12]}")


def _waiting(root: Path) -> Rows:
    counts = [count_waiting(folder) for folder in waiting(root)]
    words = f"records: {sum(counts):,}, of runs: {len(counts)}; `cgan track flush` delivers them"
    yield "Waiting", words if counts else "nothing: all records are in MLflow"


def _services(root: Path) -> Rows:
    found = services(root)
    for name in ("prefect", "mlflow", "worker"):
        if name in found:
            yield "Services", f"{name} runs: {found[name]}"
        elif found.keys() & {"prefect", "mlflow"}:  # else they are elsewhere, or nowhere
            yield "Services", f"{name} does not run: `make up`"
    if not found:
        yield "Services", "none runs: `make up` starts Prefect, a worker and MLflow"


ROWS: dict[str, Callable[[Path], Rows]] = {
    "Project": _project,
    "Champion": _store,
    "Data": _data,
    "Waiting": _waiting,
    "Services": _services,
    "Scheduled": lambda root: (("Scheduled", words) for words in prefect(root)),
}
