"""What several commands share: the panels of `cgan --help`, and options."""

from typing import Annotated, Any

import typer

DATA = "Data: cgan validate my-pictures/"
JUDGE = "Judge: cgan compare champion ."
PRODUCTION = "Production: cgan registry list"

MANY = (
    "How many images each class gets.  \\[default: as many as the largest class has; twice as many if the "
    "classes are about equal]"
)
PerClass = Annotated[int | None, typer.Option(min=2, max=100_000, help=MANY)]
Believed = Annotated[
    float, typer.Option(min=0, max=0.99, help="How sure the judge must be of a drawing's class.")
]


def from_2_to_20(help_text: str) -> Any:
    return typer.Option(min=2, max=20, help=help_text)
