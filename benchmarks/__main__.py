"""The command: `python -m benchmarks short`, `… all`, `… gpu`, `… plot`; `--help` says more."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.errors import CganError
from cgan.files import write_bytes, write_json

from . import machine
from .ground import CACHE, Ground
from .machine import ROOT
from .scale import SCALES, Scale
from .tables import Result, replace_between_markers

PAGE = ROOT / "docs/benchmarks.md"
PICTURE = ROOT / "docs/images/quality_over_time.png"
PARTS = (
    "throughput",
    "quality",
    "reading",
    "drawing",
    "service",
    "page",
    "tracking",
    "size",
    "pipeline",
)
Measure = Callable[[], Result]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Only = Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; repeatable.")]
Write = Annotated[bool, typer.Option(help="Put the tables into docs/benchmarks.md.")]


def say(text: str) -> None:
    print(text, flush=True)


def measures(scale: Scale) -> dict[str, Measure]:
    """The parts, in the order of PARTS; imports are theirs, so that one alone starts soon."""
    ground: list[Ground] = []

    def common() -> Ground:
        if not ground:
            ground.append(Ground.prepare(scale.limit, scale.judge_kimg))
        return ground[0]

    def throughput() -> Result:
        from . import throughput

        return throughput.measure(common(), scale)

    def quality() -> Result:
        from . import quality

        return quality.measure(common(), scale, say)

    def reading() -> Result:
        from . import reading

        return reading.measure(scale)

    def drawing() -> Result:
        from . import drawing

        return drawing.measure(common(), scale)

    def service() -> Result:
        from . import service

        return service.measure(scale)

    def page() -> Result:
        from . import page

        return page.measure(scale)

    def tracking() -> Result:
        from . import tracking

        return tracking.measure(common(), scale)

    def size() -> Result:
        from . import size

        return size.measure(common(), scale)

    def pipeline() -> Result:
        from . import pipeline

        if scale.name == "tiny":
            return pipeline.measure(1, settings=["sample"], short=True, say=say)
        return pipeline.measure(scale.pipeline_rounds, say=say)

    parts = (throughput, quality, reading, drawing, service, page, tracking, size, pipeline)
    return dict(zip(PARTS, parts, strict=True))


def run(scale: Scale, only: list[str] | None, write: bool) -> None:
    """Measure, print as it goes, keep the figures, write the page, and fail where a promise broke."""
    if unknown := set(only or ()) - set(PARTS):
        raise CganError(f"no part `{min(unknown)}`. There are: {', '.join(PARTS)}.")
    facts = machine.facts()
    say(machine.sentence(facts))
    began, results = time.perf_counter(), {}
    for name, measure in measures(scale).items():
        if only and name not in only:
            continue
        say(f"\n=== {name}")
        start = time.perf_counter()
        results[name] = measure()
        _keep(scale.name, name, facts, results[name])
        _print(results[name])
        say(f"\n({time.perf_counter() - start:.0f} s)")
    if "throughput" in results and "quality" in results:
        from .quality import compare_with_port

        results["port"] = compare_with_port(
            results["throughput"].figures, results["quality"].figures
        )
        _print(results["port"])
        _keep(scale.name, "port", facts, results["port"])
    picture = CACHE / scale.name / "quality_over_time.png"
    if "quality" in results:
        _draw(scale.name, facts, picture)
    finish(scale.name, facts, results, write and not only, time.perf_counter() - began)


def finish(
    scale: str, facts: dict[str, Any], results: dict[str, Result], write: bool, seconds: float
) -> None:
    checks = [check for result in results.values() for check in result.checks]
    say(f"\nMeasured in {seconds / 60:.1f} minutes; figures in {CACHE.relative_to(ROOT)}/{scale}/.")
    if write:
        tables = [table.markdown() for result in results.values() for table in result.tables]
        promises = "\n".join(f"- {check}" for check in checks)
        text = "\n\n".join([f"{machine.sentence(facts)}.", *tables, promises])
        replace_between_markers(PAGE, scale, text)
        say(f"Tables written into {PAGE.name}.")
        drawn = CACHE / scale / "quality_over_time.png"
        if drawn.exists() and (scale == "all" or not PICTURE.exists()):
            write_bytes(PICTURE, drawn.read_bytes())
    for check in checks:
        say(str(check))
    if any(not check.held for check in checks) and scale != "tiny":
        if facts["busy"] > machine.BUSY:
            say("Other processes took much of the CPU when it began: repeat it on a quiet machine.")
        raise typer.Exit(1)


def _print(result: Result) -> None:
    for table in result.tables:
        say(table.plain())


def _keep(scale: str, name: str, facts: dict[str, Any], result: Result) -> None:
    write_json(CACHE / scale / f"{name}.json", {"facts": facts, **result.figures})


def _draw(scale: str, facts: dict[str, Any], path: Path) -> None:
    from .plot import draw

    figures = json.loads((CACHE / scale / "quality.json").read_text(encoding="utf-8"))
    caption = (
        f"{figures['heldout_images']:,} drawings against {figures['heldout_images']:,} held-out images · "
        f"{facts['cores']} cores, {facts['machine']} · torch {facts['torch']} · {facts['date']}, "
        f"commit {facts['commit']}"
    )
    draw({key: figures[key] for key in ("curves", "floor")}, caption, path)


@app.command()
def short(only: Only = None, write: Write = True) -> None:
    """All tables in less than ten minutes on two cores, and the promised ratios checked."""
    run(SCALES["short"], only, write)


@app.command("all")
def everything(only: Only = None, write: Write = True) -> None:
    """More rounds, three seeds, all peers, every metric: an hour and a half."""
    run(SCALES["all"], only, write)


@app.command()
def tiny(only: Only = None) -> None:
    """A trial of the benchmark itself: figures without meaning, nothing written into the docs."""
    run(SCALES["tiny"], only, write=False)


@app.command()
def gpu(device: str = "cuda", write: Write = True) -> None:
    """The training step on a CUDA device. `--device cpu` is a trial of the command itself."""
    from . import gpu

    gpu.require(device)
    facts = machine.facts(device)
    say(machine.sentence(facts))
    began = time.perf_counter()
    trial = device == "cpu"
    scale = SCALES["tiny" if trial else "all"]
    ground = Ground.prepare(scale.limit, scale.judge_kimg)
    result = gpu.measure(ground, device, say)
    name = "tiny" if trial else "gpu"
    _keep(name, "gpu", facts, result)
    _print(result)
    finish(name, facts, {"gpu": result}, write and not trial, time.perf_counter() - began)


@app.command()
def pipeline(
    against: Annotated[str, typer.Option(help="A commit that takes turns with HEAD.")] = "",
    rounds: int = 2,
) -> None:
    """The seconds of each stage of `dvc repro`, as committed; nothing is written into the docs."""
    from . import pipeline

    facts = machine.facts()
    say(machine.sentence(facts))
    began = time.perf_counter()
    result = pipeline.measure(rounds, against or None, say=say)
    _keep("pipeline", "pipeline", facts, result)
    _print(result)
    finish(
        "pipeline", facts, {"pipeline": result}, write=False, seconds=time.perf_counter() - began
    )


@app.command()
def large(
    rows: Annotated[list[int], typer.Option(help="Of the CSV; repeatable.")] = [100_000, 1_000_000],  # noqa: B006
    folder: Annotated[
        Path | None, typer.Option(help="Where 8 GB are free for a million rows.")
    ] = None,
    write: Write = True,
) -> None:
    """Each stage on a CSV of a million rows: seconds and peak memory. A quarter of an hour."""
    from . import large

    facts = machine.facts()
    say(machine.sentence(facts))
    began = time.perf_counter()
    result = large.measure(rows, folder, say=say)
    _keep("large", "large", facts, result)
    _print(result)
    finish("large", facts, {"large": result}, write, time.perf_counter() - began)


@app.command()
def plot(scale: str = "all") -> None:
    """Draw docs/images/quality_over_time.png again from the curves of the last run."""
    source = CACHE / scale / "quality.json"
    if not source.is_file():
        raise CganError(f"{source}: not found. Measure first: `make bench-all` or `make bench`.")
    _draw(scale, json.loads(source.read_text(encoding="utf-8"))["facts"], PICTURE)
    say(f"{PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        app()
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
