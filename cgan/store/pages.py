"""MLflow's pages as we want them found: addresses, columns of the runs table, texts.

A new browser gets MLflow's pages for GenAI, unless the address says otherwise.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cgan.project import AT_THE_END, BY_STEP, FIRST_LOOK

STRIP = "strip.png"  # at the top of a run's artifacts: a drawing of each class
REAL_IMAGES = "quality.real_images"  # tag of a run: what they get in place of drawings, by metric
TRAINING = "workflowType=machine_learning"


def _first_look(columns: int) -> dict[str, Any]:
    """A section of charts with the pictures, without the params that MLflow would write over them. MLflow
    adds all other sections."""
    section = {
        "uuid": "first-look",
        "name": FIRST_LOOK,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": True,
        "columns": columns,
        "cardHeight": 680,
    }
    pictures = [
        {
            "uuid": f"first-look-{number}",
            "type": "IMAGE",
            "metricSectionId": section["uuid"],
            "deleted": False,
            "isGenerated": True,
            "imageKeys": [key],
            "step": 0,
            "showRunParams": False,
        }
        for number, key in enumerate((AT_THE_END, BY_STEP))
    ]
    return {
        "isAccordionReordered": False,
        "compareRunSections": [section],
        "compareRunCharts": pictures,
    }


# What a browser that has never been here shows: the pages for training, no assistant that opens by itself,
# no notice about data on the use of the pages, of which none is collected.
CHOICES: dict[str, Any] = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
}
COLUMNS = {  # of the table of runs, with their widths in pixels
    "tags.`data`": 110,
    "metrics.`quality/conditional_accuracy`": 210,
    "metrics.`quality/fid_judge`": 140,
    "metrics.`quality/recall`": 120,
    "metrics.`quality/coverage`": 140,
    "metrics.`time/training_s`": 140,
}
ALWAYS = {"attributes.`Run Name`": 260, "runDateAndNestInfo": 125, "duration": 80}
TABLE: dict[str, Any] = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "selectedColumns": list(COLUMNS),
    "columnOrder": [*ALWAYS, *COLUMNS],
    "columnWidths": {**ALWAYS, **COLUMNS},
    "runsHiddenMode": "FIRST_10_RUNS",
    "hideEmptyCharts": True,
    "autoRefreshEnabled": True,
    **_first_look(columns=1),  # of the view of charts: a picture a run, as wide as there is room
}
CHARTS = {"autoRefreshEnabled": True, **_first_look(columns=2)}  # of one run
# MLflow calls it a shared view: on a server of others, `&viewStateShareKey=cgan` brings the columns along.
VIEW = "cgan"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    VIEW_TAG: json.dumps(TABLE),
    "mlflow.note.content": """\
Trainings of a class-conditional DCGAN: *Training runs* on the left (this browser shows *GenAI* \
pages? Choose *Model training* above it). A run is one training, its evaluation and its pictures.

- **Filter** runs by their data: `tags.data = 'MNIST sample'`. Distances of different data cannot be
  compared.
- **Compare** runs by `quality/conditional_accuracy` (higher is better) and `quality/fid_judge` (lower
  is better), or two of them with intervals: `cgan compare A B`.
- **In a run**, *Model metrics* begins with the drawings over the training: move the slider. Grid, film
  and tables of quality are under *Artifacts*, the machine's load under *System metrics*, the generator
  under *Logged models*.
""",
}


def real_images_tag(floors: Mapping[str, float]) -> str:
    """What real images get, as the value of the tag REAL_IMAGES: `recall=0.95, coverage=0.93`."""
    return ", ".join(f"{key}={value:.5g}" for key, value in floors.items())


def real_images(tags: Mapping[str, str]) -> dict[str, float]:
    """The tag read; empty where a run has none, or somebody wrote something else into it."""
    pairs = (part.partition("=") for part in tags.get(REAL_IMAGES, "").split(", ") if part)
    with contextlib.suppress(ValueError):
        return {key: float(value) for key, _, value in pairs}
    return {}


def artifact(run_id: str, path: str) -> str:
    """A run's file, as an address that MLflow's pages understand in their texts."""
    return f"get-artifact?path={path}&run_uuid={run_id}"


def runs_page(experiment_id: str) -> str:
    """The table of the experiment's runs, seen from the server's own pages."""
    return f"/#/experiments/{experiment_id}/runs?{TRAINING}"


def run_page(site: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The address of a run's page, or of one of its artifacts there."""
    run = f"experiments/{quote(experiment_id, safe='')}/runs/{quote(run_id, safe='')}"
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"{site.rstrip('/')}/#/{run}{place}?{TRAINING}"
