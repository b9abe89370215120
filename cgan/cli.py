"""The `cgan` command. Heavy imports stay inside the commands that need them: `cgan --help` is instant."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cgan import __version__
from cgan.base.commands import run_app
from cgan.base.errors import CganError
from cgan.pipeline import commands as project_commands
from cgan.pipeline.commands import PRODUCTION_PANEL, announce
from cgan.pipeline.evidence import commands as evidence
from cgan.pipeline.project import GENERATOR

DRAW_PANEL = "Draw: cgan draw 2024 --seed 7"  # of `cgan --help`
GRID_ROWS = 10  # of `cgan draw --grid`

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Draw images of the class that you ask for, and measure how good they are. `dvc repro` trains the "
    "generator.",
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"cgan {__version__}")
        raise typer.Exit


@app.callback()
def _cgan(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None: ...


@app.command(rich_help_panel=DRAW_PANEL)
def draw(
    text: Annotated[
        str | None,
        typer.Argument(help='The classes: 2024; with more than 10 "12,3 40"; by name "cat,dog".'),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="The file to write: a .png, or with --per-class a .npz, a .csv or a folder.  "
            "\\[default: a name in drawn/]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same picture.")] = 0,
    grid: Annotated[
        bool, typer.Option("--grid", help="Draw ten rows of variants of TEXT, or of all classes.")
    ] = False,
    per_class: Annotated[
        int | None,
        typer.Option(min=1, help="Write a labelled set with this many drawings per class."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The generator: a file; `digits`, which comes with the package; champion or challenger; "
            "runs:/RUN_ID/generator or models:/NAME@ALIAS in MLflow.  \\[default: "
            "models/generator.safetensors, or `digits` if there is none]"
        ),
    ] = None,
) -> None:
    """Draw TEXT digit by digit, a grid, or a labelled set."""
    if (text is None and not grid) == (per_class is None):
        raise CganError("say what to draw: TEXT or --grid (or both), or --per-class N.")
    announce("Drawing …")
    from rich.console import Console

    from cgan.drawing.drawings import write_set
    from cgan.drawing.generator import Generator, default_source
    from cgan.drawing.picture import compose
    from cgan.drawing.screen import show as show_drawings
    from cgan.models.sampling import save_png

    model, note = (model, "") if model else default_source(GENERATOR)
    generator = Generator.load(model)
    if per_class is not None:
        typer.echo(write_set(out or "drawn/set.npz", generator, per_class, seed) + note)
        return
    labels = list(range(generator.classes)) if text is None else generator.labels(text)
    # A class name may hold a slash.
    name = "grid" if text is None else re.sub(r"[^\w,.-]+", "-", text)[:40].strip("-.") or "text"
    out, rows = out or f"drawn/{name}.png", GRID_ROWS if grid else 1
    if not out.endswith(".png"):
        raise CganError(f"--out {out}: a text or a grid is a PNG. Give a name that ends in .png.")
    images, picture = compose(generator.model, labels, rows, seed)
    save_png(out, picture)
    if (console := Console()).is_terminal:
        show_drawings(images, rows, console)
    height, width = picture.shape[:2]
    typer.echo(f"{out}: {width}×{height} pixels, seed {seed}{note}")


@app.command(rich_help_panel=DRAW_PANEL)
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="As for `draw`; the service follows champion and challenger.  \\[default: the "
            "champion if there is one, else the project's generator, else the package's]"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen; with 0.0.0.0, other machines can connect.")
    ] = "127.0.0.1",
) -> None:
    """Serve a page that draws, and /draw for programs.

    Over HTTP, until Ctrl-C. See docs/service.md.
    """
    announce("Loading the generator …")
    from cgan.service.app import serve

    serve(model, host, port)


@app.command(rich_help_panel=DRAW_PANEL)
def card(
    folder: Annotated[Path, typer.Argument(help="A new folder, to push to Hugging Face.")],
    publish_anyway: Annotated[
        bool,
        typer.Option(
            "--publish-anyway",
            help="Although the generator's file is its training images, or `cgan sharing` found that its "
            "drawings give images away.",
        ),
    ] = False,
    model: Annotated[str | None, typer.Option(help="As for `cgan draw`.")] = None,
) -> None:
    """Write a folder to publish: generator and model card.

    With a grid of drawings. The card has the numbers.
    """
    announce("Loading the generator, and what is known of it …")
    from cgan.drawing.generator import Generator, default_source
    from cgan.pipeline.card import write_card_folder

    source, note = (model, "") if model else default_source(GENERATOR)
    generator = Generator.load(source)
    typer.echo(write_card_folder(generator, folder, anyway=publish_anyway) + note)


app.add_typer(project_commands.app)
app.add_typer(evidence.app)
app.add_typer(project_commands.registry_app, name="registry", rich_help_panel=PRODUCTION_PANEL)


main = partial(run_app, app)

if __name__ == "__main__":
    main()
