"""MLflow's server as `cgan ui` starts it: a browser that has never been here finds the trainings at once.

It is MLflow's own application; only its one HTML page gets a script (`first_visit.js`). MLflow finds it
through the entry point `mlflow.app` in pyproject.toml.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cgan.processes import end_with
from cgan.store.pages import CHARTS, CHOICES, TABLE, runs_page

EXPERIMENT = "CGAN_EXPERIMENT"  # whose runs the bare address shows
SCRIPT = Path(__file__).with_name("first_visit.js")


def create_app() -> Any:
    """MLflow's FastAPI application with our page in the place of its own."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    theirs = Path(str(pages.static_folder), "index.html").read_text(encoding="utf-8")
    script = SCRIPT.read_text(encoding="utf-8")

    def first_page() -> tuple[str, dict[str, str]]:
        known = {"CHOICES": CHOICES, "TABLE": TABLE, "CHARTS": CHARTS, "START": _start()}
        constants = "".join(f"const {name} = {json.dumps(known[name])};\n" for name in known)
        page = theirs.replace("<head>", f"<head><script>{{\n{constants}{script}}}</script>", 1)
        return page, {"Cache-Control": "no-store"}

    pages.view_functions["serve"] = first_page
    end_with(os.getppid())  # MLflow's command, which would leave us and the port behind
    return app


def _start() -> str:
    """The runs of the project, once there are any."""
    from mlflow.server.handlers import _get_tracking_store

    store: Any = _get_tracking_store()
    found = store.get_experiment_by_name(os.environ.get(EXPERIMENT, ""))
    return runs_page(found.experiment_id) if found else ""
