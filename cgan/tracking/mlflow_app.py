"""MLflow's server as `cgan ui` starts it: a browser that has never been here finds the trainings at once.

MLflow's own application, with two changes to its one HTML page. A script in it sets what a visitor would
otherwise click once (pages for training, no assistant opened by itself, no notice about usage data, of
which none is collected here); what the visitor chose since stays. The bare address leads to the runs.
MLflow finds this through the entry point `mlflow.app` of pyproject.toml.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cgan.tracking.pages import runs_page

EXPERIMENT = "CGAN_EXPERIMENT"  # whose runs the bare address shows
CHOICES = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
}
SCRIPT = """
for (const [key, value] of Object.entries(CHOICES))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, JSON.stringify(value));
if (START && ["", "#", "#/"].includes(location.hash)) location.replace(START);
"""


def create_app() -> Any:
    """MLflow's FastAPI application with our page in the place of its own."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    theirs = Path(str(pages.static_folder), "index.html").read_text(encoding="utf-8")

    def first_page() -> tuple[str, dict[str, str]]:
        constants = f"const CHOICES = {json.dumps(CHOICES)}, START = {json.dumps(_start())};"
        page = theirs.replace("<head>", f"<head><script>{constants}{SCRIPT}</script>", 1)
        return page, {"Cache-Control": "no-store"}

    pages.view_functions["serve"] = first_page
    return app


def _start() -> str:
    """The runs of the project, once there are any."""
    from mlflow.server.handlers import _get_tracking_store

    store: Any = _get_tracking_store()
    found = store.get_experiment_by_name(os.environ.get(EXPERIMENT, ""))
    return runs_page("", found.experiment_id) if found else ""
