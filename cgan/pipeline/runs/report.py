"""`cgan report`: what the pipeline made, on one screen: quality, pictures, where to look next."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgan.base.errors import CganError
from cgan.base.files import read_json
from cgan.base.hosts import is_server, mlflow_page
from cgan.pipeline.project import (
    BESIDE_REAL,
    EVALUATION,
    GENERATOR,
    GRID,
    RUN_LOCATION,
    RUN_PAGE,
    TRAINING,
)
from cgan.pipeline.registry.recorded_run import ProjectRun

UI = "http://127.0.0.1:5000"  # of `cgan ui` and `make up`


def summary() -> Iterator[str]:
    """Lines. Raises CganError while the pipeline has not run."""
    if not (EVALUATION.is_file() and GENERATOR.is_file()):
        raise CganError(
            f"{EVALUATION} or {GENERATOR}: not found. Run the pipeline first, `make repro` or `dvc repro`; "
            "`cgan status` shows one that is running."
        )
    evaluation = ProjectRun(Path()).evaluation
    run: dict[str, Any] = {}
    with contextlib.suppress(CganError):
        run = read_json(TRAINING)
        run |= read_json(RUN_LOCATION)
    yield evaluation.report(run.get("training_s")).as_text()
    yield ""
    drawn, held_out = (evaluation.context[key] for key in ("drawn_images", "reference_images"))
    yield f"Measured on {drawn:,} drawings and {held_out:,} held-out images."
    yield ""
    numbers = "2024" if len(evaluation.classes) == 10 else "0,1"
    classes = ", ".join((evaluation.class_names or [numbers])[:3])
    local_command = Path(".venv/bin/cgan")  # of `make`: it may be on nobody's PATH
    command = local_command if local_command.is_file() else "cgan"
    yield f"  its page      {RUN_PAGE}: open it in a browser; it needs no server"
    yield f"  sample grid   {GRID}; beside real images: {BESIDE_REAL}"
    yield f"  draw more     {command} draw {shlex.quote(classes)} --seed 7"
    yield f"  sharing       {command} sharing says whether they may be shared"
    yield "  keep it       git commit -m 'My results' dvc.lock"
    if run.get("tracking_uri"):
        yield f"  MLflow run    {run['run_name']}, {run['run_id']}"
        yield f"  compare       {command} compare RUN . (RUN: an id, or champion)"
        site = run["tracking_uri"] if is_server(run["tracking_uri"]) else UI
        page = mlflow_page(site, str(run["experiment_id"]), run["run_id"])
        yield f"  in MLflow     {page}" + f" after {command} ui" * (site == UI)
