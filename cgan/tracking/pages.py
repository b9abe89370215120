"""Addresses and texts of MLflow's pages, as its public calls set them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from urllib.parse import quote

STRIP = "strip.png"  # at the top of a run's artifacts: a drawing of each class
REAL_IMAGES = "quality.real_images"  # tag of a run: what they get in place of drawings, by metric
TRAINING = "workflowType=machine_learning"  # a new browser gets MLflow's pages for GenAI without it
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": """\
Trainings of a class-conditional DCGAN: *Training runs* on the left (this browser shows *GenAI* \
pages? Choose *Model training* above it). A run is one training, its evaluation and its pictures.

- **Filter** runs by their data: `tags.data = 'MNIST sample'`. Distances of different data cannot be
  compared.
- **Compare** runs by `quality/conditional_accuracy` (higher is better) and `quality/fid_judge` (lower
  is better), or two of them with intervals: `cgan compare A B`.
- **In a run**, *Model metrics* has the drawings over the training: move the slider. Grid, film
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


def runs_page(site: str, experiment_id: str) -> str:
    """The address of the table of an experiment's runs."""
    return f"{site.rstrip('/')}/#/experiments/{quote(experiment_id, safe='')}/runs?{TRAINING}"


def run_page(site: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The address of a run's page, or of one of its artifacts there."""
    run = f"experiments/{quote(experiment_id, safe='')}/runs/{quote(run_id, safe='')}"
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"{site.rstrip('/')}/#/{run}{place}?{TRAINING}"
