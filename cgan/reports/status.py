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
from rich.table import Table
from rich.text import Text

from cgan import git
from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.reading import load_params
from cgan.project import CSV_SOURCE
from cgan.quality.table import METRICS
from cgan.registry.client import Registry, open_registry
from cgan.registry.history import CHAMPION, REEVALUATION, SINCE, SUMMARY, WHO, WHY, Version
from cgan.reports.status_sources import ask_prefect, line, mlflow_site, services, when
from cgan.run.records import count_waiting, waiting
from cgan.store.address import experiment_name, reason_of
from cgan.store.pages import run_page

PLAIN_WIDTH = 110
TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
COLOURS = {
    "green": r"(?i)\b(promoted|passed|healthy|completed|finished|online|runs)\b",
    "bold red": r"(?i)\b(blocked|drifted|degraded|failed|crashed|killed|offline|not run|paused|unknown)\b",
    "dim": r"`[^`]*`| · ",
}

Said = Iterator[tuple[str, str]]  # the row's name, at its first line only; a line


def status(root: Path, console: Console) -> None:
    """Print the screen. Raises CganError outside of a project."""
    if not (root / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no cgan project: there is no dvc.yaml. Go to the project's top folder first."
        )
    screen = Table.grid(padding=(0, 2))
    screen.add_column(style="bold cyan", no_wrap=True)
    screen.add_column(overflow="fold")  # an address that is cut leads nowhere
    for name, ask in ROWS.items():
        try:
            for row, text in ask(root):
                screen.add_row(row, _shown(text))
        except Exception as error:  # a store's client raises anything; a file may have any shape
            own = isinstance(error, CganError)
            why = str(error) if own else f"{type(error).__name__}: {reason_of(error)}"
            screen.add_row(name, _shown(f"unknown: {why}"))
    console.print(screen)


def make_console() -> Console:
    """The terminal's; a wide one without colours where output goes into a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def _shown(text: str) -> Text:
    """With states in colour; foreign text without what a terminal would obey."""
    shown = Text("".join(letter if letter.isprintable() else " " for letter in text).strip())
    for style, words in COLOURS.items():
        shown.highlight_regex(words, style)
    return shown


def _project(root: Path) -> Said:
    place = "not in git"
    with contextlib.suppress(git.GitError):
        source = git.source(root)
        changed = f", changed files: {len(source.changed)}" if source.changed else ""
        place = f"{source.branch} {source.commit[:8]}{changed}"
    yield "Project", line(place, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", root)


def _store(root: Path) -> Said:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    params, site = load_params(root / "params.yaml"), mlflow_site(root)
    name = experiment_name(params.tracking.experiment)
    with open_registry(params.gate.model) as registry:
        versions = registry.versions()
        champions = [version for version in versions if CHAMPION in version.aliases]
        for champion in champions:
            yield from _champion(registry, champion)
        if not champions:
            yield "Champion", "none yet: `cgan gate` makes the first"
        for version in versions[:1]:
            words = version.verdict or "not judged yet: `cgan gate`"
            yield "Verdict", line(f"version {version.number}", words, version.tags.get(SUMMARY))
        experiment = registry.client.get_experiment_by_name(name)
        ids = [experiment.experiment_id] if experiment else []
        runs = registry.client.search_runs(ids, TRAINING, max_results=1) if ids else []
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


def _champion(registry: Registry, champion: Version) -> Said:
    run = registry.client.get_run(champion.run_id)
    tags = champion.tags
    since = f"since {when(tags[SINCE])}" if SINCE in tags else ""
    yield "Champion", line(f"version {champion.number}", since, _started(run))
    yield "", _numbers(run)
    if WHY in tags:
        yield "", f"by {tags[WHO]}: {tags[WHY]}"
    drift = [tags.get(REEVALUATION + key, "") for key in ("verdict", "time", "summary")]
    yield "Drift", line(drift[0], when(drift[1]), drift[2]) or "never checked: `cgan reevaluate`"


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


def _data(root: Path) -> Said:
    if not (root / CSV_SOURCE).exists():
        yield "Data", "not fetched yet: `make repro`"
        return
    data = read_json(root / CSV_SOURCE)
    what = f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    yield "Data", line(what, f"sha256 {data['sha256'][:12]}")


def _waiting(root: Path) -> Said:
    counts = [count_waiting(folder) for folder in waiting(root)]
    words = f"records: {sum(counts):,}, of runs: {len(counts)}; `cgan track flush` delivers them"
    yield "Waiting", words if counts else "nothing: all records are in MLflow"


def _services(root: Path) -> Said:
    found = services(root)
    for name in ("prefect", "mlflow", "worker"):
        if name in found:
            yield "Services", f"{name} runs: {found[name]}"
        elif found.keys() & {"prefect", "mlflow"}:  # else they are elsewhere, or nowhere
            yield "Services", f"{name} does not run: `make up`"
    if not found:
        yield "Services", "none runs: `make up` starts Prefect, a worker and MLflow"


ROWS: dict[str, Callable[[Path], Said]] = {
    "Project": _project,
    "Champion": _store,
    "Data": _data,
    "Waiting": _waiting,
    "Services": _services,
    "Scheduled": lambda root: (("Scheduled", text) for text in ask_prefect(root)),
}
