"""`cgan status`: who is champion, what the gate decided last and why, the newest training; and `cgan report`:
quality, pictures, where to look next."""

import contextlib
import re
import shlex
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
from cgan.pipeline import project
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.client import SUMMARY, open_registry
from cgan.pipeline.registry.runs import ProjectRun
from cgan.pipeline.tracking import store

TRAINING_RUNS = f"tags.`{store.SOURCE_TAG}` = 'cgan.stages.train'"


def print_status(root: Path, console: Console) -> None:
    """Print data, what is running, champion, verdict and training; of a store that cannot be used, why."""
    for source in (_data, _at_work, _in_mlflow):
        try:
            for name, words in source(root):
                line = Text(f"{name:15}", "bold cyan").append(printable(words))
                console.print(line, soft_wrap=True)
        except CganError as error:
            console.print(f"unknown: {error}", markup=False, soft_wrap=True)


def _data(root: Path) -> Iterator[tuple[str, str]]:
    last = project.home(root) / project.DVC_LOCK
    if (root / project.DATA_SOURCE).exists():
        data = read_json(root / project.DATA_SOURCE)
        yield "Data", f"{data['rows']:,} rows of {data['source']}: {data['origin']}"
    elif last.is_file():  # scheduled runs work in checkouts
        yield "Data", f"in the cache, of a scheduled run: `cp {last} . && dvc checkout`"
    else:
        yield "Data", "not fetched yet: `make repro` or `dvc repro`"


def _at_work(root: Path) -> Iterator[tuple[str, str]]:
    """The stage, or the gate, that runs in this project or in a checkout of it."""
    for process in psutil.process_iter(["cmdline", "cwd", "create_time"]):
        command = " ".join((process.info["cmdline"] or [])[1:])
        found = re.match(r"(?:-m )?\S*cgan(?:\.stages\.|(?:\.cli)? (?=gate\b))(\w+)", command)
        folder = Path(process.info["cwd"] or "/")
        if found and (folder == root or project.home(root) / "checkouts" in folder.parents):
            began = datetime.fromtimestamp(process.info["create_time"], UTC)
            where = "here" if folder == root else "in a checkout"
            yield "Running", f"{found[1]}, {where}, since {began:%d %b %H:%M} UTC"


def _in_mlflow(root: Path) -> Iterator[tuple[str, str]]:
    params = load_params(root / "params.yaml")
    if store.is_absent(store.store_uri(root)):
        yield "Champion", "none yet: `dvc repro` trains, then `cgan gate` makes the first"
        return
    with open_registry(params.gate.model) as registry:
        versions, champion = registry.versions(), registry.champion()
        if not champion:
            yield "Champion", "none yet: `cgan gate` makes the first"
        else:
            yield "Champion", champion.champion_line
            yield "", _quality(registry.client.get_run(champion.run_id))
        for version in versions[:1]:
            yield "Verdict", version.tags.get(SUMMARY, f"version {version.number}: none yet")
        name = store.experiment_name(params.tracking.experiment)
        if run := registry.newest_run(name, TRAINING_RUNS):
            began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            started = f"started {began:%d %b %H:%M} UTC"
            yield "Last training", f"{run.info.run_name} · {run.info.status} · {started}"
            if not champion or run.info.run_id != champion.run_id:
                yield "", _quality(run)
            is_judged = run.info.run_id in {version.run_id for version in versions}
            advice = "" if is_judged else ", not gated yet: `cgan gate`"
            yield "", f"run {run.info.run_id}{advice}"


def _quality(run: Any) -> str:
    return str(run.data.tags.get(store.QUALITY_TAG) or "not evaluated yet: `dvc repro` does it")


def report_lines() -> Iterator[str]:
    """Yield the lines of `cgan report`. Raises CganError while the pipeline has not run."""
    if not (project.EVALUATION.is_file() and project.GENERATOR.is_file()):
        raise CganError(
            f"{project.EVALUATION} or {project.GENERATOR}: not found. Run the pipeline first, `make repro` "
            "or `dvc repro`; `cgan status` shows one that is running."
        )
    evaluation = ProjectRun(Path()).evaluation
    run: dict[str, Any] = {}
    with contextlib.suppress(CganError):
        run = read_json(project.TRAINING)
        run |= read_json(project.RUN_LOCATION)
    yield evaluation.report(run.get("training_s")).as_text()
    yield ""
    drawn, held_out = (evaluation.context[key] for key in ("drawn_images", "reference_images"))
    yield f"Measured on {drawn:,} drawings and {held_out:,} held-out images."
    yield ""
    numbers = "2024" if len(evaluation.classes) == 10 else "0,1"
    classes = ", ".join((evaluation.class_names or [numbers])[:3])
    local_command = Path(".venv/bin/cgan")  # of `make`: it may be on nobody's PATH
    command = local_command if local_command.is_file() else "cgan"
    yield f"  its page      {project.RUN_PAGE}: open it in a browser; it needs no server"
    yield f"  sample grid   {project.GRID}; beside real images: {project.BESIDE_REAL}"
    yield f"  draw more     {command} draw {shlex.quote(classes)} --seed 7"
    yield f"  sharing       {command} sharing says whether they may be shared"
    yield "  keep it       git commit -m 'My results' dvc.lock"
    if run.get("tracking_uri"):
        yield f"  MLflow run    {run['run_name']}, {run['run_id']}"
        yield f"  compare       {command} compare RUN . (RUN: an id, or champion)"
        after = "" if store.is_server(run["tracking_uri"]) else f" after {command} ui"
        yield f"  in MLflow     {store.page_in_mlflow(run)}{after}"
