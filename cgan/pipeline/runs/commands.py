"""The commands about runs: `report`, `compare`, `ui`."""

import sys
from typing import Annotated

import typer

from cgan.pipeline.options import JUDGE_PANEL, announce
from cgan.pipeline.project import require_project

app = typer.Typer()


@app.command(rich_help_panel=JUDGE_PANEL)
def report() -> None:
    """Show how good the generator is, and where everything is."""
    require_project()
    announce("Reading what was measured …")
    from cgan.pipeline.runs.report import summary

    for line in summary():
        typer.echo(line)


@app.command(rich_help_panel=JUDGE_PANEL)
def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="Id or alias in MLflow, or a project's folder.")
    ],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The same.")],
) -> None:
    """Say whether two generators differ beyond chance, and in what.

    Metrics, with the interval of each difference, and params; as Markdown where they go into a file. A
    folder is a project, so `cgan compare champion .` compares the champion with what was trained last. With
    other seeds they may differ otherwise: that takes `python -m flows.sweep --seeds 5`.
    """
    require_project()
    announce("Reading both runs …")
    from cgan.pipeline.runs.compare import compare_runs

    report = compare_runs(run_a, run_b)
    typer.echo(report.as_text() if sys.stdout.isatty() else report.as_markdown())


@app.command(rich_help_panel=JUDGE_PANEL)
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Browse all runs in MLflow's pages.

    They are served on this machine until Ctrl-C.
    """
    root = require_project()
    from cgan.pipeline.runs.ui import serve_ui

    serve_ui(root, port)
