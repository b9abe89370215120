"""The commands `cgan evidence` and `cgan sharing`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.pipeline.commands import JUDGE_PANEL, announce
from cgan.pipeline.project import require_project

app = typer.Typer()


def from_2_to_20(help_text: str) -> Any:
    return typer.Option(min=2, max=20, help=help_text)


@app.command(rich_help_panel=JUDGE_PANEL)
def evidence(
    per_class: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100_000,
            help="How many images each class gets.  \\[default: as many as the largest class has; twice as "
            "many if the classes are about equal]",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        from_2_to_20(
            "Test on all images, in this many folds, each with its own generator.  \\[default: 5 if a class "
            "has fewer than 50 held-out images]"
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        from_2_to_20(
            "Train the classifiers with this many seeds, for one generator.  \\[default: 5]"
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images to test on: a CSV, .zip or folder.  \\[default: the data's own test "
            "set, or the hold-out]"
        ),
    ] = None,
    drawn: Annotated[
        Path | None,
        typer.Option(help="Drawings by another generator, one folder per class."),
    ] = None,
) -> None:
    """Say whether drawings make a classifier better (minutes).

    It is trained with and without them.
    """
    require_project()
    announce(
        "Training classifiers with drawings and without; if interrupted, run it again, and it goes on …"
    )
    from cgan.pipeline.evidence.answers import find_evidence
    from cgan.pipeline.params_file import load_params

    options = {"per_class": per_class, "folds": folds, "seeds": seeds}
    find_evidence(load_params(), typer.echo, test=test, drawn=drawn, **options)


@app.command(rich_help_panel=JUDGE_PANEL)
def sharing(
    drawn: Annotated[
        Path | None,
        typer.Option(help="Drawings by another generator, one folder per class."),
    ] = None,
    shadows: Annotated[int, from_2_to_20("Train so many generators, an even number.")] = 2,
) -> None:
    """Say whether drawings may be shared in place of images (two trainings)."""
    require_project()
    announce("Comparing the drawings with those of generators of half the images …")
    from cgan.pipeline.evidence.answers import find_sharing
    from cgan.pipeline.params_file import load_params

    find_sharing(load_params(), drawn, shadows, typer.echo)
