"""Measure, print tables, check promises: `python -m benchmarks COMMAND`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from cgan.base.errors import CganError
from cgan.base.files import write_json

from . import large_data, machine, quality, sample
from .evaluation_set import CACHE
from .scale import SCALES, Scale
from .tables import Result

PARTS = ("throughput", "quality", "service", "page")
Measure = Callable[[dict[str, Result]], Result]  # of what was measured before

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Only = Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; repeatable.")]


def run(scale: Scale, only: list[str] | None = None) -> None:
    if unknown := set(only or ()) - set(PARTS):
        raise CganError(f"no part `{min(unknown)}`. There are: {', '.join(PARTS)}.")
    modules = {part: importlib.import_module(f".{part}", __package__) for part in only or PARTS}
    parts: dict[str, Measure] = {
        part: lambda _, module=module: module.measure(scale)  # type: ignore[misc]
        for part, module in modules.items()
    }
    if {"throughput", "quality"} <= parts.keys() and scale.device == "cpu":
        parts["port"] = lambda results: quality.compare_with_port(
            results["throughput"].figures, results["quality"].figures
        )
    tell(scale.name, parts, scale.device)


def tell(folder: str, parts: dict[str, Measure], device: str = "cpu") -> None:
    """Measure each part, print its tables, keep its figures; and at the end fail if a promise is broken."""
    facts = machine.facts(device)
    print(machine.sentence(facts), flush=True)
    results: dict[str, Result] = {}
    for name, measure in parts.items():
        results[name] = result = measure(results)
        write_json(CACHE / folder / f"{name}.json", {"facts": facts, **result.figures})
        for table in result.tables:
            print(f"\n{table.markdown()}", flush=True)
    if folder != "tiny":
        fail_on_broken_promises(*results.values())


def fail_on_broken_promises(*results: Result) -> None:
    checks = [check for result in results for check in result.checks]
    for check in checks:
        print(f"- {check}")
    if not all(check.held for check in checks):
        raise typer.Exit(1)


@app.command()
def short(only: Only = None) -> None:
    """Every part once: about ten minutes on two cores."""
    run(SCALES["short"], only)


@app.command("all")
def everything(only: Only = None) -> None:
    """More rounds, three seeds: about an hour."""
    run(SCALES["all"], only)


@app.command()
def small() -> None:
    """Quality of generators of 100 to 1,000 digits: seven minutes."""
    tell("all", {"small": lambda _: sample.small(SCALES["all"])})


@app.command()
def gpu(device: str = "cuda") -> None:
    """The training step on a CUDA device. `--device cpu` is a trial of the command itself."""
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
        Path | None, typer.Option(help="Where 8 GB are free for a million rows.")
    ] = None,
) -> None:
    """Each stage on a CSV of a million rows: seconds and peak memory. Half an hour."""
    tell("large", {"large": lambda _: large_data.large(rows, folder)})


if __name__ == "__main__":
    try:
        app()
    except CganError as error:
        sys.exit(f"Error: {error}")
