"""MLflow's pages as we want them found: addresses, columns of the runs table, texts.

A new browser gets MLflow's pages for GenAI, unless the address says otherwise.
"""

from __future__ import annotations

import json

REAL_IMAGES = "quality.real_images"  # tag of a run: what they get in place of drawings, by metric
TRAINING = "workflowType=machine_learning"
VIEW = "cgan"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = (
    "metrics.`quality/conditional_accuracy`",
    "metrics.`quality/fid_judge`",
    "metrics.`quality/recall`",
    "metrics.`quality/coverage`",
    "metrics.`time/training_s`",
    "attributes.`Dataset`",
)
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    VIEW_TAG: json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": COLUMNS,
            "viewMaximized": False,
            "runListHidden": False,
            "hideEmptyCharts": True,
        }
    ),
    "mlflow.note.content": """\
Trainings of a class-conditional DCGAN: *Training runs* on the left (this browser shows *GenAI* \
pages? Choose *Model training* above it). A run is one training, its evaluation and its pictures.

- **Compare** runs by `quality/conditional_accuracy` (higher is better) and `quality/fid_judge` (lower
  is better).
- **In a run**, *Model metrics* begins with the drawings over the training: move the slider. Grid, film
  and tables of quality are under *Artifacts*, the machine's load under *System metrics*, the generator
  under *Logged models*.
""",
}


def runs_page(site: str, experiment_id: str) -> str:
    """The table of the experiment's runs, with COLUMNS."""
    view = f"&viewStateShareKey={VIEW}"
    return f"{site.rstrip('/')}/#/experiments/{experiment_id}/runs?{TRAINING}{view}"


def run_page(site: str, experiment_id: str, run_id: str) -> str:
    return f"{site.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING}"
