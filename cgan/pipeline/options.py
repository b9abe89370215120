"""What several commands share: the panels of `cgan --help`, how one says that it has begun, and options."""

from typing import Annotated, Any

import typer

DRAW_PANEL = "Draw: cgan draw 2024 --seed 7"
DATA_PANEL = "Your data: cgan validate my-pictures/"
JUDGE_PANEL = "How good is it? cgan report"
PRODUCTION_PANEL = "Production: cgan gate"

MANY = (
    "How many images each class gets.  \\[default: as many as the largest class has; twice as many if the "
    "classes are about equal]"
)
PerClass = Annotated[int | None, typer.Option(min=2, max=100_000, help=MANY)]


def announce(text: str) -> None:
    """Before something takes seconds, for people: a program reads the other stream."""
    typer.echo(text, err=True)


def from_2_to_20(help_text: str) -> Any:
    return typer.Option(min=2, max=20, help=help_text)
