"""The page that a flow run shows in Prefect beside its state: the verdict, the drawings, links."""

import base64
import os
from typing import Any

from prefect.artifacts import create_markdown_artifact

from cgan.evaluation import Evaluation
from cgan.files import read_json
from cgan.hosts import is_server, mlflow_page
from cgan.markdown import in_markdown, table
from cgan.project import EVALUATION, GATE_REPORT, GATE_TEXT, GRID, RUN_LOCATION, RUN_PAGE
from cgan.quality.table import quality_line


def publish_artifact(judged: bool) -> str:
    """Make the artifact `run`. Returns the run's message: why the gate decided so, or the quality."""
    if judged:
        text = GATE_TEXT.read_text(encoding="utf-8")
        summary = str(read_json(GATE_REPORT)["summary"])
    else:
        evaluation = Evaluation.read(EVALUATION)
        head, *rows = evaluation.table()
        text, summary = table(head, rows, 3), quality_line(evaluation)
    parts = [text, _mlflow_links(read_json(RUN_LOCATION))]
    # With its bytes in it: a page would not find a file.
    grid = base64.b64encode(GRID.read_bytes()).decode()
    parts.append(f"![A row for each class](data:image/png;base64,{grid})")
    create_markdown_artifact(
        "\n\n".join(filter(None, parts)),
        key="run",
        description="The verdict, the drawings, and where the run is in MLflow",
    )
    return summary


def _mlflow_links(run: dict[str, Any]) -> str:
    """Links to the generator's run and to its page, if a server shows them; else how to see it."""
    if not run.get("run_id"):
        return ""
    # `make up` serves the store that the stages write to as a file.
    site = os.environ.get("CGAN_MLFLOW_PAGE") or str(run.get("tracking_uri") or "")
    run_id, experiment_id = run["run_id"], str(run.get("experiment_id") or 0)
    if not is_server(site):
        name = in_markdown(run.get("run_name"))
        return f"`make ui` shows the MLflow run **{name}**, id `{run_id}`."
    in_mlflow = mlflow_page(site, experiment_id, run_id)
    html = mlflow_page(site, experiment_id, run_id, RUN_PAGE.name)
    return f"[The MLflow run]({in_mlflow}) · [the page of the run]({html})"
