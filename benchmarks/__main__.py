"""Measure, print tables, check promises: `python -m benchmarks COMMAND`."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from cgan.base.errors import CganError
from cgan.base.report import Report

from . import large_data, page, quality, service, throughput
from .common import ROOT, SCALES, Scale, machine

FOLDER = ROOT / ".cgan/bench"
PARTS: dict[str, Callable[[Scale], Report]] = {
    "throughput": throughput.measure,
    "quality": quality.of_presets,
    "service": service.measure,
    "page": page.measure,
}

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Only = Annotated[list[str], typer.Option(help=f"One of {', '.join(PARTS)}; repeatable.")]


def run(scale: Scale, only: list[str]) -> None:
    if unknown := set(only) - set(PARTS):
        raise CganError(f"no part `{min(unknown)}`. There are: {', '.join(PARTS)}.")
    tell(scale.name, {part: partial(PARTS[part], scale) for part in only or PARTS})


def tell(folder: str, parts: dict[str, Callable[[], Report]]) -> None:
    """Measure each part, print and keep its report; at the end fail if a promise is broken."""
    where = machine()
    print(where, flush=True)
    broken = False
    for name, measure in parts.items():
        report = measure()
        replace(report, facts={"measured_on": where, **report.facts}).write(
            FOLDER / folder / f"{name}.json"
        )
        print(f"\n{report.as_text()}", flush=True)
        broken = broken or bool(report.verdict)
    if broken and folder != "tiny":
        raise typer.Exit(1)


@app.command()
def short(only: Only = []) -> None:  # noqa: B006
    """Every part once: about ten minutes on two cores."""
    run(SCALES["short"], only)


@app.command("all")
def everything(only: Only = []) -> None:  # noqa: B006
    """More rounds, three seeds: about an hour."""
    run(SCALES["all"], only)


@app.command()
def small() -> None:
    """Quality of generators of 100 to 1,000 digits: seven minutes."""
    tell("all", {"small": partial(quality.of_small_sets, SCALES["all"])})


@app.command()
def gpu(device: str = "cuda") -> None:
    """Training on a CUDA device. `--device cpu` is a trial of the command itself."""
    if device == "cuda" and not torch.cuda.is_available():
        raise CganError(
            "torch finds no CUDA device here. Run `make bench-gpu` where there is one, or "
            "`python -m benchmarks gpu --device cpu` to see that it would run."
        )
    run(SCALES["tiny" if device == "cpu" else "gpu"], ["throughput", "quality"])


@app.command()
def large(
    rows: Annotated[list[int], typer.Option(help="Of the CSV; repeatable.")] = [100_000, 1_000_000],  # noqa: B006
    folder: Annotated[
        Path | None, typer.Option(help="Where 6 GB are free for a million rows.")
    ] = None,
) -> None:
    """Each stage on a CSV of a million rows: seconds and peak memory. Half an hour."""
    tell("large", {"large": partial(large_data.measure, rows, folder)})


if __name__ == "__main__":
    try:
        app()
    except CganError as error:
        sys.exit(f"Error: {error}")
