"""The commands about runs: `report`, `compare`, `reproduce`, `ui`."""

import contextlib
from typing import Annotated

import typer

from cgan.errors import CganError
from cgan.pipeline.options import JUDGE_PANEL, announce
from cgan.project import require_project

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

    Metrics, with the interval of each difference, params and code; as Markdown where they go into a file. A
    folder is a project, so `cgan compare champion .` compares the champion with what was trained last. With
    other seeds they may differ otherwise: that takes `python -m flows.sweep --seeds 5`.
    """
    require_project()
    announce("Reading both runs …")
    from rich.console import Console

    from cgan.pipeline.runs.compare import compare

    compare(run_a, run_b, Console())


@app.command(hidden=True)
def reproduce(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN_ID", help="Id in MLflow, or champion, or models:/NAME@ALIAS."),
    ],
) -> None:
    """Repeat a training from its commit, params and data, and say whether the bytes are the same.

    Runs the code of its commit in a temporary clone. Exit code 0 if they are equal, else 1.
    """
    require_project()
    from cgan.pipeline.runs.reproduce import reproduce_run

    if not reproduce_run(run, typer.echo):
        raise typer.Exit(1)


@app.command(rich_help_panel=JUDGE_PANEL)
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Browse all runs in MLflow's pages.

    They are served on this machine until Ctrl-C.
    """
    root = require_project()
    from cgan.pipeline.params_file import load_params
    from cgan.pipeline.runs.ui import serve_ui
    from cgan.pipeline.tracking.store import experiment_name

    experiment = "cgan"
    with contextlib.suppress(CganError):  # runs can be looked at whatever is wrong with params.yaml
        experiment = load_params().tracking.experiment
    raise typer.Exit(serve_ui(root, port, experiment_name(experiment)))
