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
from cgan.errors import CganError, printable
from cgan.files import read_json
from cgan.params.reading import load_params
from cgan.project import CSV_SOURCE
from cgan.quality.table import METRICS
from cgan.registry.client import open_registry
from cgan.registry.history import CHAMPION, SUMMARY
from cgan.reports.status_sources import POOL, ask_prefect, mlflow_site, services
from cgan.run.records import count_waiting, waiting
from cgan.store.address import experiment_name, reason_of
from cgan.store.pages import run_page

TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
COLOURS = {
    "green": r"(?i)\b(promoted|passed|healthy|completed|finished|online|runs)\b",
    "bold red": r"(?i)\b(blocked|drifted|degraded|failed|crashed|killed|offline|not run|paused|unknown)\b",
}
SERVER_S = 3  # that MLflow's or Prefect's server has for an answer

Rows = Iterator[tuple[str, str]]  # a row's name, at its first line only; a line


def status(root: Path, console: Console) -> None:
    """Print the screen. Raises CganError outside of a project."""
    if not (root / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no cgan project: there is no dvc.yaml. Go to the project's top folder first."
        )
    for name, source in SOURCES.items():
        rows: list[tuple[str, str]] = []
        try:
            rows.extend(source(root))
        except Exception as error:  # a store's client raises anything; a file may have any shape
            own = isinstance(error, CganError)
            why = str(error) if own else f"{type(error).__name__}: {reason_of(error)}"
            rows.append((name, f"unknown: {why}"))
        for row, words in rows:
            shown = Text(printable(words))
            for style, states in COLOURS.items():
                shown.highlight_regex(states, style)
            console.print(Text(f"{row:15}", "bold cyan").append(shown), soft_wrap=True)


def make_console() -> Console:
    return Console(highlight=False)


def _line(*parts: object) -> str:
    """The parts that are not empty, apart."""
    return " · ".join(str(part) for part in parts if part)


def _time(moment: datetime | str) -> str:
    """`25 Nov 02:10 UTC`, also of ISO text; nothing of nothing."""
    found = datetime.fromisoformat(moment) if isinstance(moment, str) and moment else moment
    return f"{found.astimezone(UTC):%d %b %H:%M} UTC" if isinstance(found, datetime) else ""


def _project(root: Path) -> Rows:
    place = "not in git"
    with contextlib.suppress(git.GitError):
        source = git.source(root)
        changed = f", changed files: {len(source.changed)}" if source.changed else ""
        place = f"{source.branch} {source.commit[:8]}{changed}"
    yield "Project", _line(place, _time(datetime.now(UTC)), root)


def _store(root: Path) -> Rows:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_S))
    params, site = load_params(root / "params.yaml"), mlflow_site(root)
    with open_registry(params.gate.model) as registry:
        client, versions = registry.client, registry.versions()
        champion = next((each for each in versions if CHAMPION in each.aliases), None)
        if champion:
            run = client.get_run(champion.run_id)
            yield "Champion", _line(champion.reign or f"version {champion.number}", _trained(run))
            yield "", _numbers(run)
        else:
            yield "Champion", "none yet: `cgan gate` makes the first"
        for version in versions[:1]:
            words = version.verdict or "not judged yet: `cgan gate`"
            yield "Verdict", _line(f"version {version.number}", words, version.tags.get(SUMMARY))
        experiment = client.get_experiment_by_name(experiment_name(params.tracking.experiment))
        ids = [experiment.experiment_id] if experiment else []
        runs = client.search_runs(ids, TRAINING, max_results=1) if ids else []
        if not runs:
            yield "Last training", "none in MLflow yet: `make repro` trains"
        for run in runs:
            tags, run_id = run.data.tags, run.info.run_id
            changes = " with changes" if tags.get("git.dirty") == "true" else ""
            commit = f"commit {tags.get('mlflow.source.git.commit', '')[:8]}{changes}"
            yield "Last training", _line(run.info.run_name, run.info.status, _trained(run), commit)
            yield "", _numbers(run)
            page = run_page(site, run.info.experiment_id, run_id)
            yield "", page if site else f"run {run_id}: `make ui` shows it"
            if run_id not in [version.run_id for version in versions]:
                yield "", "not judged yet: `cgan gate`"


def _trained(run: Any) -> str:
    return f"trained {_time(datetime.fromtimestamp(run.info.start_time / 1000, UTC))}"


def _numbers(run: Any) -> str:
    """Its own, those for which a screen has room; `cgan report` has each in plain words."""
    measured = run.data.metrics
    numbers = [
        f"{metric.name} {measured[f'quality/{key}']:.4g}"
        for key, metric in METRICS.items()
        if metric.on_screen and f"quality/{key}" in measured
    ]
    return _line(*numbers) or "not evaluated yet: `dvc repro` does it"


def _data(root: Path) -> Rows:
    if not (root / CSV_SOURCE).exists():
        yield "Data", "not fetched yet: `make repro`"
        return
    data = read_json(root / CSV_SOURCE)
    what = f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    yield "Data", _line(what, f"sha256 {data['sha256'][:12]}")


def _waiting(root: Path) -> Rows:
    counts = [count_waiting(folder) for folder in waiting(root)]
    words = f"records: {sum(counts):,}, of runs: {len(counts)}; `cgan track flush` delivers them"
    yield "Waiting", words if counts else "nothing: all records are in MLflow"


def _services(root: Path) -> Rows:
    found = services(root)
    for name, place in found.items():
        yield "Services", f"{name} runs: {place}"
    missing = [name for name in ("prefect", "mlflow", "worker") if name not in found]
    if missing and list(found) != ["worker"]:  # of a lone worker, the servers are elsewhere
        yield "Services", f"not run here: {', '.join(missing)}; `make up` starts them"


def _prefect(root: Path) -> Rows:
    """The last scheduled run, the next one, whether the pool is paused, its workers."""
    site = services(root).get("prefect")
    url = os.environ.get("PREFECT_API_URL") or (site and f"{site}/api")
    if not url:
        yield "Scheduled", "Prefect does not run here: `make up` starts it"
        return

    api = url.rstrip("/") if "/api" in url else f"{url.rstrip('/')}/api"

    def found(what: str, **question: object) -> list[dict[str, Any]]:
        return list(ask_prefect(api, "POST", f"/{what}/filter", question, SERVER_S))

    ended = ["RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
    began = {"state": {"type": {"any_": ended}}, "start_time": {"is_null_": False}}
    for run in found("flow_runs", flow_runs=began, sort="START_TIME_DESC", limit=1):
        state = run["state"]
        yield "Scheduled", _line(run["name"], state["name"], _time(run["start_time"]))
        if state["type"] != "COMPLETED" and state.get("message"):
            yield "", state["message"][:160]
    waits = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    following = found("flow_runs", flow_runs=waits, sort="EXPECTED_START_TIME_ASC", limit=1)
    for run in following:
        names = found("deployments", deployments={"id": {"any_": [run["deployment_id"]]}})
        when = _time(run["expected_start_time"])
        yield "Scheduled", _line(f"next: {', '.join(each['name'] for each in names)}", when)
    if not following:
        yield "Scheduled", "nothing is scheduled: `make deploy`"
    pools = found("work_pools", work_pools={"name": {"any_": [POOL]}})
    if any(pool["is_paused"] for pool in pools):
        yield "", f"the pool is paused, no run starts: `prefect work-pool resume {POOL}`"
    for worker in found(f"work_pools/{POOL}/workers") if pools else ():
        seen = _time(worker["last_heartbeat_time"])
        yield "", _line(f"worker {worker['name']}", worker["status"].lower(), seen)


SOURCES: dict[str, Callable[[Path], Rows]] = {
    "Project": _project,
    "Champion": _store,
    "Data": _data,
    "Waiting": _waiting,
    "Services": _services,
    "Scheduled": _prefect,
}
