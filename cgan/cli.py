"""The `cgan` command. Heavy imports stay inside the commands that need them: `cgan --help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cgan.errors import CganError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, judge and draw with a class-conditional DCGAN.",
)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A .csv, .csv.gz or .zip, or a folder with one.")],
    report: Annotated[
        list[Path] | None, typer.Option(help="Write the report here too: .md or .json; repeatable.")
    ] = None,
) -> None:
    """Say whether FILE is a valid CSV of labelled images, and if not, which row and column is wrong."""
    from cgan import schema, sources
    from cgan.files import write_json, write_text
    from cgan.params import load_params

    outputs = report or []
    for output in outputs:
        if output.suffix not in (".md", ".json"):
            raise CganError(f"--report {output}: expected a name that ends in .md or .json.")
    here = load_params() if Path("params.yaml").is_file() else None
    params = here.validation if here else schema.DEFAULTS
    member, limit = (here.data.member, here.data.max_megabytes) if here else ("train.csv", 2000)
    with sources.plain_csv(file, member, limit) as (csv, name):
        table = schema.read_csv(csv, params, max_bytes=limit * 1_000_000, name=name)
    found = schema.report_on(table, params, name)
    for output in outputs:
        if output.suffix == ".json":
            write_json(output, found)
        else:
            write_text(output, schema.to_markdown(found, name))
    typer.echo(f"{name} is valid: {schema.summary(found)}")


def main() -> None:
    """Entry point: a CganError becomes one message and its exit code, never a traceback."""
    try:
        app()
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
