"""The command about data: `validate`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cgan.base.errors import CganError
from cgan.pipeline.options import DATA_PANEL, announce

app = typer.Typer()


@app.command(rich_help_panel=DATA_PANEL)
def validate(
    file: Annotated[
        Path, typer.Argument(help="A .csv, .csv.gz or .zip, or a folder with one or with pictures.")
    ],
) -> None:
    """Check your images; say what to set, and what a run will hold out.

    If FILE holds no valid labelled images, it says which row, column or file is wrong. In a project, it also
    says what a run with these images will do.
    """
    announce(f"Reading {file} …")
    from cgan.data.read import read_source
    from cgan.data.splitting import with_groups
    from cgan.data.validation import validation
    from cgan.params.sections import DataParams, ValidateParams

    project_params, params, source = None, ValidateParams(), DataParams()
    if Path("params.yaml").is_file():
        from cgan.pipeline.params_file import load_params

        project_params = load_params()
        params, source = project_params.validation, project_params.data
    try:
        images = read_source(file, source, params)
    except CganError as error:
        if project_params or not re.search(r"`(data|validate)\.", str(error)):
            raise
        raise CganError(
            f"{error} These settings are in the params.yaml of a project, which `cgan init FOLDER` makes."
        ) from None
    if project_params and (group := project_params.preprocess.group):
        images = with_groups(images, group)
    typer.echo(validation(images, params, str(file)).as_text())
    if project_params:
        from cgan.pipeline.data.forecast import forecast, next_step

        for line in forecast(images, project_params):  # some take seconds
            typer.echo(line)
        typer.echo(next_step(file, project_params.data))
