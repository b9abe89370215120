"""The commands `cgan evidence` and `cgan sharing`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import cgan
from cgan.base.errors import CganError
from cgan.pipeline import project
from cgan.pipeline.commands import JUDGE_PANEL, announce

MIN_HELD_OUT = 50  # images of each class; with fewer, folds test all that there are
DEFAULT_ROUNDS = 5  # folds, or seeds

app = typer.Typer()
Drawn = Annotated[Path | None, typer.Option(help="Another generator's, a folder for each class.")]


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
        from_2_to_20("Train classifiers with this many seeds, for one generator.  \\[default: 5]"),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images to test on: a CSV, .zip or folder.  \\[default: the data's own test "
            "set, or the hold-out]"
        ),
    ] = None,
    drawn: Drawn = None,
) -> None:
    """Say whether drawings make a classifier better (minutes).

    It is trained with and without them.
    """
    project.require_project()
    announce("Training classifiers with drawings and without; if interrupted, run it again …")
    from cgan.data.images import joined, load_images
    from cgan.pipeline.evidence import answers
    from cgan.pipeline.params_file import load_params

    if folds and (seeds or test or drawn):
        raise CganError("--folds tests on all images: leave out --seeds, --test and --drawn.")
    params, train = load_params(), load_images(project.TRAIN_DATA)
    tested, tested_on = answers.tested_images(params, test, train)
    fewest = int(tested.counts.min())
    if not (folds or seeds or test or drawn) and fewest < MIN_HELD_OUT:
        folds = DEFAULT_ROUNDS
        typer.echo(
            f"A class of {tested_on} has only {fewest:,} images, so all are tested on, in {folds} folds, "
            f"each with its own generator; `--seeds {DEFAULT_ROUNDS}` is quicker."
        )
    if folds:
        parts = map(load_images, (project.HOLDOUT_DATA, project.TEST_DATA))
        tested, tested_on = joined(*filter(len, parts)), "all images"
    typer.echo(f"Tested on {tested_on}.")
    generator = None if folds else answers.generator_or_drawings(params, drawn, train)
    answers.run_and_report(
        cgan.evidence,
        project.EVIDENCE,
        (train, tested, generator),
        params,
        drawn,
        folds=folds,
        seeds=seeds or DEFAULT_ROUNDS,
        per_class=per_class,
        training=params.train,
    )


@app.command(rich_help_panel=JUDGE_PANEL)
def sharing(
    drawn: Drawn = None,
    shadows: Annotated[int, from_2_to_20("Number of generators to train, an even one.")] = 2,
) -> None:
    """Say whether drawings may be shared in place of images (two trainings)."""
    project.require_project()
    announce("Comparing the drawings with those of generators of half the images …")
    from cgan.data.images import load_images
    from cgan.pipeline.evidence import answers
    from cgan.pipeline.params_file import load_params
    from cgan.quality.evaluation import Evaluation

    params, train = load_params(), load_images(project.TRAIN_DATA)
    generator = answers.generator_or_drawings(params, drawn, train)
    images = train, load_images(project.HOLDOUT_DATA), generator
    path = project.EVALUATION
    options = {"shadows": shadows, "evaluation": Evaluation.read(path) if path.is_file() else None}
    answers.run_and_report(cgan.sharing, project.SHARING, images, params, drawn, **options)
