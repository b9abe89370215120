"""The commands about data: `validate`, `split`, `balance`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cgan.errors import CganError
from cgan.pipeline.options import DATA_PANEL, Believed, PerClass, from_2_to_20
from cgan.project import require_project

app = typer.Typer()


@app.command(rich_help_panel=DATA_PANEL)
def validate(
    file: Annotated[
        Path, typer.Argument(help="A .csv, .csv.gz or .zip, or a folder with one or with pictures.")
    ],
) -> None:
    """Check your images; say what to set, and how long it takes.

    If FILE holds no valid labelled images, it says which row, column or file is wrong. In a project, it also
    says what a run with these images will do, and how long it takes here.
    """
    from cgan.params.sections import DataParams, ValidateParams
    from cgan.readers import csv_report, sources
    from cgan.splitting import with_groups

    project_params, params, source = None, ValidateParams(), DataParams()
    if Path("params.yaml").is_file():
        from cgan.pipeline.params_file import load_params

        project_params = load_params()
        params, source = project_params.validation, project_params.data
    try:
        images, name = sources.read_source(file, source, params)
    except CganError as error:
        if project_params or not re.search(r"`(data|validate)\.", str(error)):
            raise
        raise CganError(
            f"{error} These settings are in the params.yaml of a project, which `cgan init FOLDER` makes."
        ) from None
    if project_params and (group := project_params.preprocess.group):
        # The forecast has the notes on groups.
        images = replace(with_groups(images, group), notes=images.notes)
    facts = csv_report.report_on(images, params, name)
    typer.echo(f"{name} is valid: {csv_report.summary(facts)}")
    if project_params:
        from cgan.pipeline.data.forecast import forecast, next_step

        for line in forecast(images, project_params):  # some take seconds
            typer.echo(line)
        typer.echo(next_step(file, project_params.data))


@app.command(hidden=True)
def split(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    folds: Annotated[
        int | None, from_2_to_20("Write this many folds, each with a train and a test part.")
    ] = None,
) -> None:
    """Write folders of pictures: what a generator may learn from, and what `cgan evidence` tests on."""
    require_project()
    from cgan.pipeline.data.split import write_split
    from cgan.pipeline.params_file import load_params

    write_split(load_params(), folds, out, typer.echo)


@app.command(hidden=True)
def balance(
    per_class: PerClass = None,
    believed: Believed = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Same seed, same drawings.")] = 0,
    out: Annotated[
        str, typer.Option(help="The .csv or the folder to write.")
    ] = "drawn/balanced.csv",
    model: Annotated[str | None, typer.Option(help="As for `cgan draw`.")] = None,
) -> None:
    """Write the data, with drawings added until all classes have the same number of images."""
    require_project()
    from cgan.pipeline.data.balance import balance
    from cgan.project import GENERATOR

    source = model or str(GENERATOR)
    balance(source, per_class, believed, seed, out, typer.echo)
