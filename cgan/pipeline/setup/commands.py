"""The commands about a project: `init` and `preset`."""

from pathlib import Path
from typing import Annotated

import typer

from cgan.pipeline.options import DATA_PANEL
from cgan.pipeline.project import require_project

app = typer.Typer()


@app.command(rich_help_panel=DATA_PANEL)
def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Make a new project, which `dvc repro` can run.

    In FOLDER: params.yaml, dvc.yaml, git and DVC.
    """
    from cgan.pipeline.setup.new_project import make_project

    typer.echo(make_project(folder))


@app.command(rich_help_panel=DATA_PANEL)
def preset(
    name: Annotated[str | None, typer.Argument(help="Without one, lists them.")] = None,
) -> None:
    """Train for longer or shorter: list the presets, or take one.

    Writes a preset into the section `train` of params.yaml. Then run `dvc repro`.
    """
    from cgan.params.presets import PRESETS

    if name is None:
        width = max(map(len, PRESETS))
        for known, preset in PRESETS.items():
            typer.echo(f"{known:<{width}}  {preset.description}")
        return
    require_project()
    from cgan.pipeline.params_file import apply_preset

    changed = apply_preset(name)
    for key, (before, after) in changed.items():
        typer.echo(f"{key}: {before} → {after}")
    words = f"holds preset {name}." if changed else f"held {name} already."
    typer.echo(f"params.yaml {words}")
