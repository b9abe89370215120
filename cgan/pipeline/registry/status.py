"""`cgan status`: who is champion, what the gate decided last and why, what trains now or was trained last."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cgan.errors import CganError
from cgan.evaluation import METRICS
from cgan.files import locked, read_json
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.version import SUMMARY
from cgan.pipeline.tracking.store import experiment_name, is_absent, require_not_deleted, store_uri
from cgan.project import CSV_SOURCE, LOCK, RUN_REFERENCE, home, training_folder, training_lock
from cgan.text import printable

ANSWER_S = 3  # that a server may take
IS_TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"


def status(root: Path, console: Console) -> None:
    """Print it; of a store that cannot be used, why."""
    for source in (_data, _store):
        try:
            for name, words in source(root):
                shown = Text(f"{name:15}", "bold cyan").append(printable(words))
                console.print(shown, soft_wrap=True)
        except (CganError, KeyError, TypeError, ValueError) as error:  # a damaged file too
            console.print(f"unknown: {error}", markup=False, soft_wrap=True)


def require_verdict(root: Path, max_age: timedelta) -> None:
    """Has the gate decided within this time, if only that nothing is new? Raises CganError where it has not,
    and where nobody can tell."""
    with open_registry(load_params(root / "params.yaml").gate.model, ANSWER_S) as registry:
        last, shown = registry.last_verdict(), registry.address
    if not last:
        raise CganError(f"`cgan gate` has not decided anything yet in the MLflow store {shown}.")
    age = datetime.now(UTC) - datetime.fromisoformat(last)
    if age < -timedelta(hours=1):
        raise CganError(
            f"the last verdict of `cgan gate` lies in the future ({last}). Set the clocks of this machine "
            "and of the one that ran the gate; the next verdict is right again."
        )
    if age > max_age:
        raise CganError(
            f"the last verdict of `cgan gate` is {_hours(age)} old ({last}), expected at most "
            f"{_hours(max_age)}: runs since then did not start, failed or hang. docs/production.md says "
            "where to look."
        )


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):.3g} h"


def _data(root: Path) -> Iterator[tuple[str, str]]:
    data = read_json(root / CSV_SOURCE) if (root / CSV_SOURCE).exists() else None
    words = data and f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    if not words and (last := home(root) / LOCK).is_file():  # runs work in checkouts
        ended = datetime.fromtimestamp(last.stat().st_mtime, UTC)
        words = f"in the cache, as a scheduled run left them on {ended:%d %b %H:%M} UTC: `cp {last} . && dvc "
        words += "checkout` brings them here"
    yield "Data", words or "not fetched yet: `make repro` or `dvc repro`"


def _store(root: Path) -> Iterator[tuple[str, str]]:
    params = load_params(root / "params.yaml")
    if is_absent(store_uri(root)) and not (root / RUN_REFERENCE).exists():
        yield "Last training", "none yet: `dvc repro` makes the first"
        yield "Champion", "none yet: after a training, `cgan gate` makes the first"
        return
    with open_registry(params.gate.model, ANSWER_S) as registry:
        client, versions, served = registry.client, registry.versions(), registry.champion()
        champion = next((version for version in versions if version.number == served), None)
        if champion:
            run = client.get_run(champion.run_id)
            yield "Champion", f"{champion.champion_line} · {_trained(run)}"
            yield "", _numbers(run)
        else:
            yield "Champion", "none yet: `cgan gate` makes the first"
        for last in versions[:1]:
            yield "Verdict", last.tags.get(SUMMARY) or f"version {last.number} is not judged yet"
        experiment = client.get_experiment_by_name(experiment_name(params.tracking.experiment))
        if experiment:
            place = experiment.experiment_id
            require_not_deleted(experiment.lifecycle_stage, "experiment", experiment.name, place)
        ids = [experiment.experiment_id] if experiment else []
        recent = (
            client.search_runs(ids, IS_TRAINING, max_results=100) if ids else []
        )  # newest first
        unended = [run for run in recent if run.info.status == "RUNNING"]
        cut_off = [run for run in unended if _is_cut_off(run)]
        now = [run for run in unended if run not in cut_off]
        done = [run for run in recent if run.info.status in ("FINISHED", "FAILED")]
        for run in cut_off[:1]:
            words = f"{run.info.run_name} · its process is gone, though MLflow says RUNNING"
            yield "Cut off", f"{words} · {_started(run)} · `dvc repro` with its params resumes it"
        for run in now or done[:1]:
            tags, run_id = run.data.tags, run.info.run_id
            commit = tags.get("mlflow.source.git.commit", "")[:8]
            changes = " with changes" if tags.get("git.dirty") == "true" else ""
            began = _started(run) if now else _trained(run)
            words = f"{run.info.status} · {began} · commit {commit}{changes}"
            yield "Trains now" if now else "Last training", f"{run.info.run_name} · {words}"
            if not now:
                yield "", _numbers(run)
                judged = run_id in [version.run_id for version in versions]
                yield "", f"run {run_id}{'' if judged else ', not judged yet: `cgan gate`'}"


def _is_cut_off(run: Any) -> bool:
    """Was it killed on this machine? MLflow learns of that when the training resumes."""
    folder = training_folder(run.data.tags.get("cgan.fingerprint", "none"))
    if not folder.is_dir():
        return False
    with locked(training_lock(folder), wait=False) as is_free:
        return is_free


def _trained(run: Any) -> str:
    return f"trained {_time(run)}"


def _started(run: Any) -> str:
    return f"started {_time(run)}"


def _time(run: Any) -> str:
    return f"{datetime.fromtimestamp(run.info.start_time / 1000, UTC):%d %b %H:%M} UTC"


def _numbers(run: Any) -> str:
    """The metrics for which a screen has room; `cgan report` has each in plain words."""
    shown = [
        f"{row.name} {row.shown(value)}"
        for key, row in METRICS.items()
        if row.on_screen and (value := run.data.metrics.get(f"quality/{key}")) is not None
    ]
    return " · ".join(shown) or "not evaluated yet: `dvc repro` does it"
