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
from cgan.pipeline.registry.client import Registry, open_registry
from cgan.pipeline.registry.version import SUMMARY, Version
from cgan.pipeline.tracking.store import experiment_name, find_experiment, is_absent, store_uri
from cgan.pipeline.tracking.tags import COMMIT_TAG, DIRTY_TAG, FINGERPRINT_TAG, SOURCE_TAG
from cgan.project import DATA_SOURCE, DVC_LOCK, RUN_LOCATION, home, training_folder, training_lock
from cgan.text import printable

# For an answer of the server to a monitor, for which nobody waits, and to which a busy server is no fault: on
# two cores at a load of 10, an answer took 3 to 9 s.
MONITOR_TIMEOUT_S = 60
IS_TRAINING = f"tags.`{SOURCE_TAG}` = 'cgan.stages.train'"


def status(root: Path, console: Console) -> None:
    """Print data, champion, verdict and training; of a store that cannot be used, why."""
    for source in (_data, _store):
        try:
            for name, words in source(root):
                line = Text(f"{name:15}", "bold cyan").append(printable(words))
                console.print(line, soft_wrap=True)
        except (CganError, KeyError, TypeError, ValueError) as error:  # a damaged file too
            console.print(f"unknown: {error}", markup=False, soft_wrap=True)


def require_recent_decision(root: Path, max_age: timedelta) -> None:
    """Has the gate decided within this time, if only that nothing is new? Raises CganError where it has not,
    and where nobody can tell, as where a clock is wrong."""
    model = load_params(root / "params.yaml").gate.model
    with open_registry(model, MONITOR_TIMEOUT_S) as registry:
        last, address = registry.last_decided_at(), registry.address
    if not last:
        raise CganError(f"`cgan gate` has not decided anything yet in the MLflow store {address}.")
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
    last = home(root) / DVC_LOCK
    if (root / DATA_SOURCE).exists():
        data = read_json(root / DATA_SOURCE)
        yield "Data", f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    elif last.is_file():  # scheduled runs work in checkouts
        ended = datetime.fromtimestamp(last.stat().st_mtime, UTC)
        yield (
            "Data",
            f"in the cache, as a scheduled run left them on {ended:%d %b %H:%M} UTC: `cp {last} . && dvc "
            "checkout` brings them here",
        )
    else:
        yield "Data", "not fetched yet: `make repro` or `dvc repro`"


def _store(root: Path) -> Iterator[tuple[str, str]]:
    params = load_params(root / "params.yaml")
    if is_absent(store_uri(root)) and not (root / RUN_LOCATION).exists():
        yield "Last training", "none yet: `dvc repro` makes the first"
        yield "Champion", "none yet: after a training, `cgan gate` makes the first"
        return
    with open_registry(params.gate.model) as registry:
        versions = registry.versions()
        yield from _champion(registry, versions)
        if versions:
            newest = versions[0]
            unjudged = f"version {newest.number} is not gated yet"
            yield "Verdict", newest.tags.get(SUMMARY) or unjudged
        trainings = _trainings(registry, experiment_name(params.tracking.experiment))
        yield from _training_lines(trainings, {version.run_id for version in versions})


def _champion(registry: Registry, versions: list[Version]) -> Iterator[tuple[str, str]]:
    number = registry.champion_number()
    champion = next((version for version in versions if version.number == number), None)
    if champion:
        run = registry.client.get_run(champion.run_id)
        yield "Champion", f"{champion.champion_line} · trained {_start_time(run)}"
        yield "", _metrics_line(run)
    else:
        yield "Champion", "none yet: `cgan gate` makes the first"


def _trainings(registry: Registry, name: str) -> list[Any]:
    """The newest runs of trainings in the experiment, the last begun first."""
    if not (experiment := find_experiment(registry.client, name)):
        return []
    experiment_id = experiment.experiment_id
    return list(registry.client.search_runs([experiment_id], IS_TRAINING, max_results=100))


def _training_lines(runs: list[Any], judged: set[str]) -> Iterator[tuple[str, str]]:
    """The last training that was cut off; those that go on now, or else the last that ended. `judged`: the
    ids of runs that have a version."""
    running = [run for run in runs if run.info.status == "RUNNING"]
    cut_off = [run for run in running if _is_cut_off(run)]
    active = [run for run in running if run not in cut_off]
    ended = [run for run in runs if run.info.status in ("FINISHED", "FAILED")]
    if cut_off:
        run = cut_off[0]
        yield (
            "Cut off",
            f"{run.info.run_name} · its process is gone, though MLflow says RUNNING · started "
            f"{_start_time(run)} · `dvc repro` with its params resumes it",
        )
    for run in active:
        yield "Trains now", _training_line(run, "started")
    if ended and not active:
        run = ended[0]
        yield "Last training", _training_line(run, "trained")
        yield "", _metrics_line(run)
        advice = "" if run.info.run_id in judged else ", not gated yet: `cgan gate`"
        yield "", f"run {run.info.run_id}{advice}"


def _training_line(run: Any, verb: str) -> str:
    tags = run.data.tags
    commit = tags.get(COMMIT_TAG, "")[:8]
    changes = " with changes" if tags.get(DIRTY_TAG) == "true" else ""
    words = f"{run.info.status} · {verb} {_start_time(run)} · commit {commit}{changes}"
    return f"{run.info.run_name} · {words}"


def _is_cut_off(run: Any) -> bool:
    """Was it killed on this machine? MLflow learns of that when the training resumes."""
    folder = training_folder(run.data.tags.get(FINGERPRINT_TAG, "none"))
    if not folder.is_dir():
        return False
    with locked(training_lock(folder), wait=False) as is_free:
        return is_free


def _start_time(run: Any) -> str:
    return f"{datetime.fromtimestamp(run.info.start_time / 1000, UTC):%d %b %H:%M} UTC"


def _metrics_line(run: Any) -> str:
    """The metrics for which a screen has room; the page says what each means."""
    metrics = [
        f"{row.name} {row.shown(value)}"
        for row in METRICS.values()
        if row.on_screen and (value := run.data.metrics.get(row.tracked_key)) is not None
    ]
    return " · ".join(metrics) or "not evaluated yet: `dvc repro` does it"
