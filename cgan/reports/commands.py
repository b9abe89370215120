"""The commands about what was made: reports of it, comparisons, and what it is worth."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.project import require_project

DATA = "Data: cgan validate my-pictures/"
JUDGE = "Judge: cgan compare champion ."
PRODUCTION = "Production: cgan registry list"

made = typer.Typer()


def from_2_to_20(words: str) -> Any:
    return typer.Option(min=2, max=20, help=words)


@made.command(rich_help_panel=JUDGE)
def report() -> None:
    """Show how good the trained generator is, and where its pictures and its run are."""
    require_project()
    from cgan.reports.report import summary

    typer.echo(summary())


@made.command(rich_help_panel=JUDGE)
def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="Id or alias in MLflow, or a project's folder.")
    ],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The same.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write reports/compare.md for a pull request.")
    ] = False,
) -> None:
    """Compare two runs: metrics, with the interval of each difference, params and code."""
    require_project()
    from cgan.reports.compare import compare

    compare(run_a, run_b, typer.echo, markdown)


MANY = (
    "How many images each class gets.  \\[default: as many as the largest class has; twice as many if the "
    "classes are about equal]"
)
PerClass = Annotated[int | None, typer.Option(min=2, max=100_000, help=MANY)]
Believed = Annotated[
    float, typer.Option(min=0, max=0.99, help="How sure the judge must be of a drawing's class.")
]


@made.command(rich_help_panel=JUDGE)
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
) -> None:
    """Say whether drawings make a classifier better, by training it with and without them (minutes)."""
    require_project()
    from cgan.params.reading import load_params
    from cgan.reports.evidence import Options, find_evidence

    options = Options(per_class, believed, folds, seeds, test, drawn)
    find_evidence(load_params(), options, typer.echo)


@made.command(rich_help_panel=DATA)
def split(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    folds: Annotated[
        int | None, from_2_to_20("Write this many folds, each with a train and a test part.")
    ] = None,
) -> None:
    """Write folders of pictures: what a generator may learn from, and what `cgan evidence` tests on."""
    require_project()
    from cgan.params.reading import load_params
    from cgan.reports.split import write_split

    write_split(load_params(), folds, out, typer.echo)


@made.command(rich_help_panel=JUDGE)
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
    from cgan.reports.reproduce import reproduce_run

    if not reproduce_run(run, typer.echo):
        raise typer.Exit(1)


@made.command(rich_help_panel=DATA)
def balance(
    per_class: PerClass = None,
    believed: Believed = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Same seed, same drawings.")] = 0,
    out: Annotated[
        str, typer.Option(help="The .csv or the folder to write.")
    ] = "drawn/balanced.csv",
    model: Annotated[str | None, typer.Option(help="As for `cgan draw`.")] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Write it even if `cgan evidence` found harm or the gate blocked."
        ),
    ] = False,
) -> None:
    """Write the data, with drawings added until all classes have the same number of images."""
    require_project()
    from cgan.project import GENERATOR
    from cgan.reports.balance import balance

    source = model or str(GENERATOR)
    balance(source, per_class, believed, seed, out, typer.echo, anyway=anyway)


UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([mhd])", text.strip())
    if not match:
        raise typer.BadParameter("expected a number and m, h or d, such as 26h")
    return timedelta(**{UNITS[match[2]]: float(match[1])})


@made.command(rich_help_panel=PRODUCTION)
def status(
    max_age: Annotated[
        timedelta | None,
        typer.Option(
            parser=_age,
            metavar="26h",
            help="For a monitor: exit with 0 and no words if the gate has decided within this time (m, h or "
            "d), else with 1 and a sentence.",
        ),
    ] = None,
) -> None:
    """Show who is champion, what the gate decided last and why, and what was trained last."""
    root = require_project()
    from cgan.reports.status import require_verdict, status

    if max_age is not None:
        require_verdict(root, max_age)
        return
    from rich.console import Console

    status(root, Console(highlight=False))
