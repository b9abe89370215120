"""The commands `cgan evidence` and `cgan sharing`."""

from pathlib import Path
from typing import Annotated

import typer

from cgan.errors import CganError
from cgan.pipeline.options import JUDGE_PANEL, Believed, PerClass, announce, from_2_to_20
from cgan.project import require_project

app = typer.Typer()


@app.command(rich_help_panel=JUDGE_PANEL)
def evidence(
    per_class: PerClass = None,
    believed: Believed = 0.0,
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
        typer.Option(
            help="Drawings by another generator, one folder per class; with --folds, in fold-1, fold-2, …"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A coarse answer in about two minutes on two cores.")
    ] = False,
    answers: Annotated[
        bool,
        typer.Option(
            "--answers",
            help="Compare your own classifiers by FILES, their answers on the same test images: without "
            "drawings and with them, and again for each further seed. Columns: label, prediction and, if you "
            "like, group. Needs no project.",
        ),
    ] = False,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]", help="With --answers: CSVs.")
    ] = None,
) -> None:
    """Say whether drawings make a classifier better (minutes).

    It is trained with and without them.
    """
    if answers or files:
        from cgan.pipeline.evidence.predictions import evidence_of_answers

        if not answers:
            raise CganError("FILES are for --answers: add it, or leave them out.")
        if per_class or believed or folds or seeds or test or drawn or quick:
            raise CganError("--answers trains nothing: leave out the other options.")
        evidence_of_answers(files or [], typer.echo)
        return
    require_project()
    announce("Looking at the images, and how long a classifier takes here …")
    from cgan.pipeline.evidence.experiment import Options, find_evidence
    from cgan.pipeline.params_file import load_params

    options = Options(per_class, believed, folds, seeds, test, drawn, quick)
    find_evidence(load_params(), options, typer.echo)


@app.command(rich_help_panel=JUDGE_PANEL)
def sharing(
    drawn: Annotated[
        Path | None,
        typer.Option(help="Drawings by another generator, one folder per class."),
    ] = None,
    seeds: Annotated[int, from_2_to_20("Train the classifiers with this many seeds.")] = 3,
) -> None:
    """Say whether drawings may be shared in place of images (minutes).

    Can they stand in for the images, and what do they give away of these?
    """
    require_project()
    announce("Comparing drawings with the images; then classifiers are trained, for some minutes …")
    from cgan.pipeline.evidence.sharing import find_sharing
    from cgan.pipeline.params_file import load_params

    find_sharing(load_params(), drawn, seeds, typer.echo)
