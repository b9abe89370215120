"""`cgan status`: who is champion, what the gate decided last and why, the newest training."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.text import Text

from cgan.base.errors import CganError
from cgan.base.files import read_json
from cgan.base.text import printable
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import DATA_SOURCE, DVC_LOCK, home
from cgan.pipeline.registry.client import SUMMARY, open_registry
from cgan.pipeline.tracking.store import experiment_name, is_absent, store_uri
from cgan.pipeline.tracking.tags import QUALITY_TAG, SOURCE_TAG

IS_TRAINING = f"tags.`{SOURCE_TAG}` = 'cgan.stages.train'"


def print_status(root: Path, console: Console) -> None:
    """Print data, what is running, champion, verdict and training; of a store that cannot be used, why."""
    for source in (_data, _at_work, _store):
        try:
            for name, words in source(root):
                line = Text(f"{name:15}", "bold cyan").append(printable(words))
                console.print(line, soft_wrap=True)
        except CganError as error:
            console.print(f"unknown: {error}", markup=False, soft_wrap=True)


def _data(root: Path) -> Iterator[tuple[str, str]]:
    last = home(root) / DVC_LOCK
    if (root / DATA_SOURCE).exists():
        data = read_json(root / DATA_SOURCE)
        yield "Data", f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    elif last.is_file():  # scheduled runs work in checkouts
        yield "Data", f"in the cache, of a scheduled run: `cp {last} . && dvc checkout`"
    else:
        yield "Data", "not fetched yet: `make repro` or `dvc repro`"


def _at_work(root: Path) -> Iterator[tuple[str, str]]:
    """The stage, or the gate, that runs in this project or in a checkout of it."""
    for process in psutil.process_iter(["cmdline", "cwd", "create_time"]):
        command = " ".join((process.info["cmdline"] or [])[1:])
        found = re.fullmatch(r"-m cgan\.(?:stages\.|cli )(\w+)", command)
        folder = Path(process.info["cwd"] or "/")
        if found and (folder == root or home(root) / "checkouts" in folder.parents):
            began = datetime.fromtimestamp(process.info["create_time"], UTC)
            where = "here" if folder == root else "in a checkout"
            yield "Running", f"{found[1]}, {where}, since {began:%d %b %H:%M} UTC"


def _store(root: Path) -> Iterator[tuple[str, str]]:
    params = load_params(root / "params.yaml")
    if is_absent(store_uri(root)):
        yield "Champion", "none yet: `dvc repro` trains, then `cgan gate` makes the first"
        return
    with open_registry(params.gate.model) as registry:
        versions, number = registry.versions(), registry.champion_number()
        if number is None:
            yield "Champion", "none yet: `cgan gate` makes the first"
        else:
            champion = registry.version(number)
            yield "Champion", champion.champion_line
            yield "", _quality(registry.client.get_run(champion.run_id))
        for version in versions[:1]:
            yield "Verdict", version.tags.get(SUMMARY, f"version {version.number}: none yet")
        name = experiment_name(params.tracking.experiment)
        experiment = registry.client.get_experiment_by_name(name)
        places = [experiment.experiment_id] if experiment else []
        for run in registry.client.search_runs(places, IS_TRAINING, max_results=1):
            facts, began = run.info, datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            started = f"started {began:%d %b %H:%M} UTC"
            yield "Last training", f"{facts.run_name} · {facts.status} · {started}"
            if number is None or facts.run_id != champion.run_id:
                yield "", _quality(run)
            is_judged = facts.run_id in {version.run_id for version in versions}
            advice = "" if is_judged else ", not gated yet: `cgan gate`"
            yield "", f"run {facts.run_id}{advice}"


def _quality(run: Any) -> str:
    return str(run.data.tags.get(QUALITY_TAG) or "not evaluated yet: `dvc repro` does it")
