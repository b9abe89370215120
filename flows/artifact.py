"""The page that a flow run shows in Prefect beside its state: the verdict, the drawings, a link."""

import base64
import os

from prefect.artifacts import create_markdown_artifact

from cgan.base.files import read_json
from cgan.base.hosts import is_server, mlflow_page
from cgan.pipeline.project import EVALUATION, GATE_REPORT, GATE_TEXT, GRID, RUN_LOCATION
from cgan.quality.evaluation import Evaluation


def publish_artifact(judged: bool) -> str:
    """Make the artifact `run`. Returns the run's message: why the gate decided so, or the quality."""
    if judged:
        text = GATE_TEXT.read_text(encoding="utf-8")
        summary = str(read_json(GATE_REPORT)["sentence"])
    else:
        report = Evaluation.read(EVALUATION).report()
        text, summary = report.as_markdown(), report.sentence
    # With its bytes in it: a page would not find a file.
    grid = base64.b64encode(GRID.read_bytes()).decode()
    picture = f"![A row for each class](data:image/png;base64,{grid})"
    run = read_json(RUN_LOCATION)
    # `make up` serves the store that the stages write to as a file.
    site = os.environ.get("CGAN_MLFLOW_PAGE") or str(run["tracking_uri"])
    link = "`make ui` shows the run in MLflow."
    if is_server(site):
        link = f"[The MLflow run]({mlflow_page(site, run['experiment_id'], run['run_id'])})"
    create_markdown_artifact("\n\n".join([text, link, picture]), key="run")
    return summary
