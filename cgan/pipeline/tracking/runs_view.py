"""The columns of MLflow's table of runs: by default it shows no metric, and cuts the name of a run.

They are a saved view (MLflow 3.15), which is a tag of the experiment: a link names it. An older MLflow shows
its default columns.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cgan.evaluation import METRICS
from cgan.hosts import VIEW
from cgan.pipeline.tracking.tags import DATA_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

TAG = f"mlflow.sharedViewState.{VIEW}"
CHARACTER = 6  # pixels of a column's head
PADDING = 28
# With these, two metrics fit a screen of 1366 pixels beside MLflow's Assistant.
RUN_NAME = 232
CREATED = 130


def runs_view() -> str:
    """The view: a run's name, when it was made, and the leading metrics; a tag's value."""
    leading = [metric.tracked_key for metric in METRICS.values() if metric.short_name]
    metrics = {f"metrics.`{name}`": CHARACTER * len(name) + PADDING for name in leading}
    columns = {"attributes.`Run Name`": RUN_NAME, "runDateAndNestInfo": CREATED} | metrics
    state = {
        "selectedColumns": [*metrics, f"tags.`{DATA_TAG}`"],
        "columnOrder": [*columns],
        "columnWidths": columns,
    }
    return json.dumps({"name": "Quality", "createdAt": 0, "state": json.dumps(state)})


def add_runs_view(client: MlflowClient, experiment: Experiment) -> None:
    """Add it to an experiment of before it; one that somebody saved anew stays."""
    if TAG not in experiment.tags and experiment.lifecycle_stage == "active":
        client.set_experiment_tag(experiment.experiment_id, TAG, runs_view())
