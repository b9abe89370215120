"""The commands `cgan sweep …`. What they do is in `sweeps.py`, which imports more than `cgan --help` may."""

from __future__ import annotations

from typing import Annotated

import typer

sweep = typer.Typer(no_args_is_help=True, help="What sweeps found (`python -m flows.sweep`).")
Name = Annotated[str | None, typer.Argument(help="Of the sweep.  \\[default: the newest]")]


@sweep.command()
def show(name: Name = None) -> None:
    """The best trial of a sweep, and whether it is better than params.yaml."""
    from cgan.reports.sweeps import show

    typer.echo(show(name))


@sweep.command()
def apply(name: Name = None) -> None:
    """Write the best trial's params into params.yaml, if they are better by more than the luck of seeds."""
    from cgan.reports.sweeps import apply

    typer.echo(apply(name))
