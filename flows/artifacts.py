"""What a flow run shows in Prefect beside its state: a page with the verdict, the drawings, links."""

from __future__ import annotations

import base64
import contextlib
import os

from prefect.artifacts import create_markdown_artifact

from cgan import project
from cgan.files import read_json
from cgan.hosts import run_page
from cgan.markdown import in_markdown, table
from cgan.quality.table import quality_line, quality_table


def publish(judged: bool) -> str:
    """The artifact `run`. Returns one sentence, the run's message: why the gate decided so, if it did."""
    if judged:
        text = project.GATE_TEXT.read_text(encoding="utf-8")
        summary = str(read_json(project.GATE_REPORT)["summary"])
    else:
        try:
            report = read_json(project.EVALUATION)
            rows = quality_table(report)
            text, summary = table(rows[0], rows[1:], 3), quality_line(report)
        except (LookupError, TypeError, AttributeError, ValueError):
            return "evaluated with another version"
    parts = [text, _mlflow_run()]
    with contextlib.suppress(
        FileNotFoundError
    ):  # with its bytes in it: a page would not find a file
        grid = base64.b64encode(project.GRID.read_bytes()).decode()
        parts.append(f"![A row for each class](data:image/png;base64,{grid})")
    words = "The verdict, the drawings, and where the run is in MLflow"
    create_markdown_artifact("\n\n".join(filter(None, parts)), key="run", description=words)
    return summary


def _mlflow_run() -> str:
    """The run that made the generator, and its page: links, if a server is known that shows them."""
    run = read_json(project.RUN_REFERENCE) if project.RUN_REFERENCE.is_file() else {}
    if not run.get("run_id"):
        return ""
    # `make up` serves the store that the stages write to as a file.
    uri = os.environ.get("CGAN_MLFLOW_PAGE") or str(run.get("tracking_uri") or "")
    if not uri.startswith("http"):
        name = in_markdown(run.get("run_name"))
        return f"`make ui` shows the MLflow run **{name}**, id `{run['run_id']}`."
    place = (uri, str(run.get("experiment_id") or 0), str(run["run_id"]))
    page = run_page(*place, project.RUN_PAGE.name)
    return f"[The MLflow run]({run_page(*place)}) · [the page of the run]({page})"
