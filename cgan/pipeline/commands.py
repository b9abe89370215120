"""The commands of a project: `init`, `preset`, `validate`, `report`, `compare`, `ui`, `gate`, `status`,
`registry …`. What takes a second to import is imported in them."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgan.base.errors import CganError, ModelError
from cgan.base.text import printable
from cgan.pipeline.project import BLOCKED_EXIT_CODE, require_project

if TYPE_CHECKING:
    from cgan.pipeline.registry.client import Registry

# Panels of `cgan --help`.
DATA_PANEL = "Your data: cgan validate my-pictures/"
JUDGE_PANEL = "How good is it? cgan report"
PRODUCTION_PANEL = "Production: cgan gate"

app = typer.Typer()
registry_app = typer.Typer(no_args_is_help=True, help="List versions; promote one; roll back.")


def announce(text: str) -> None:
    """Before something takes seconds, for people: a program reads the other stream."""
    typer.echo(text, err=True)


@app.command(rich_help_panel=DATA_PANEL)
def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Make a new project, which `dvc repro` can run.

    In FOLDER: params.yaml, dvc.yaml, git and DVC.
    """
    from cgan.pipeline.new_project import make_project

    typer.echo(make_project(folder))


@app.command(rich_help_panel=DATA_PANEL)
def preset(
    name: Annotated[str | None, typer.Argument(help="Without one, lists them.")] = None,
) -> None:
    """Train for longer or shorter: list the presets, or take one.

    Writes a preset into the section `train` of params.yaml. Then run `dvc repro`.
    """
    from cgan.params.presets import PRESETS

    if name is None:
        width = max(map(len, PRESETS))
        for known, preset in PRESETS.items():
            typer.echo(f"{known:<{width}}  {preset.description}")
        return
    require_project()
    from cgan.pipeline.params_file import apply_preset

    changed = apply_preset(name)
    for key, (before, after) in changed.items():
        typer.echo(f"{key}: {before} → {after}")
    words = f"holds preset {name}." if changed else f"held {name} already."
    typer.echo(f"params.yaml {words}")


@app.command(rich_help_panel=DATA_PANEL)
def validate(
    file: Annotated[
        Path, typer.Argument(help="A .csv, .csv.gz or .zip, or a folder with one or with pictures.")
    ],
) -> None:
    """Check your images; say what to set, and what a run will hold out.

    If FILE holds no valid labelled images, it says which row, column or file is wrong. In a project, it also
    says what a run with these images will do.
    """
    announce(f"Reading {file} …")
    from cgan.data.read import read_source
    from cgan.data.splitting import with_groups
    from cgan.data.validation import validation
    from cgan.params.sections import Params
    from cgan.pipeline.forecast import forecast, next_step
    from cgan.pipeline.params_file import load_params

    is_project = Path("params.yaml").is_file()
    params = load_params() if is_project else Params()
    try:
        images = read_source(file, params.data, params.validation)
    except CganError as error:
        if is_project or not re.search(r"`(data|validate)\.", str(error)):
            raise
        raise CganError(
            f"{error} These settings are in the params.yaml of a project, which `cgan init FOLDER` makes."
        ) from None
    if params.preprocess.group:
        images = with_groups(images, params.preprocess.group)
    typer.echo(validation(images, params.validation, str(file)).as_text())
    if is_project:
        for line in forecast(images, params):  # some take seconds
            typer.echo(line)
        typer.echo(next_step(file, params.data))


@app.command(rich_help_panel=JUDGE_PANEL)
def report() -> None:
    """Show how good the generator is, and where everything is."""
    require_project()
    announce("Reading what was measured …")
    from cgan.pipeline.registry.status import report_lines

    for line in report_lines():
        typer.echo(line)


@app.command(rich_help_panel=JUDGE_PANEL)
def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="Id or alias in MLflow, or a project's folder.")
    ],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The same.")],
) -> None:
    """Say whether two generators differ beyond chance, and in what.

    Metrics, with the interval of each difference, and params; as Markdown where they go into a file. A
    folder is a project, so `cgan compare champion .` compares the champion with what was trained last. With
    other seeds they may differ otherwise: that takes `python -m flows.sweep --seeds 5`.
    """
    require_project()
    announce("Reading both runs …")
    from cgan.pipeline.registry.runs import compare_runs

    report = compare_runs(run_a, run_b)
    typer.echo(report.as_text() if sys.stdout.isatty() else report.as_markdown())


@app.command(rich_help_panel=JUDGE_PANEL)
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Browse all runs in MLflow's pages.

    They are served on this machine until Ctrl-C.
    """
    from cgan.pipeline.tracking.store import serve_pages

    serve_pages(require_project(), port)


@app.command(rich_help_panel=PRODUCTION_PANEL)
def gate() -> None:
    """Promote what was trained to champion, or block it.

    What `dvc repro` trained is compared with the champion. Exit code 3 if it is blocked.
    """
    require_project()
    announce("Looking up the champion …")
    from cgan.pipeline.params_file import load_params
    from cgan.pipeline.registry.gate import judge_and_promote

    report = judge_and_promote(load_params(), typer.echo)
    raise typer.Exit(BLOCKED_EXIT_CODE if report.verdict == "blocked" else 0)


@app.command(rich_help_panel=PRODUCTION_PANEL)
def status() -> None:
    """Show what is running, the champion, the last verdict and training."""
    root = require_project()
    from rich.console import Console

    from cgan.pipeline.registry.status import print_status

    print_status(root, Console(highlight=False))


# -- registry ----------------------------------------------------------------------------------------


def _in_a_line(why: str) -> str:
    """Printable: an argument may hold bytes that the locale cannot read, and no store takes."""
    if not why.strip():
        raise CganError("--why: give the reason in a few words, for the history.")
    return printable(" ".join(why.split()))[:500]


Why = Annotated[str, typer.Option("--why", callback=_in_a_line, help="Why, for the history.")]


def _project_registry() -> AbstractContextManager[Registry]:
    from cgan.pipeline.registry.client import model_name, open_registry

    require_project()
    announce("Asking MLflow's registry …")
    return open_registry(model_name())


@registry_app.command("list")
def list_() -> None:
    """List all versions with their verdicts, and the champion: since when, why and by whom."""
    from cgan.pipeline.registry.client import ROLLED_BACK, RUN_NAME

    with _project_registry() as registry:
        found, aliases = registry.versions(), registry.aliases()
        champion = registry.champion()
    typer.echo(f"Versions of `{registry.model}` in {registry.address}: {len(found)}")
    for version in found:
        state = "rolled back" if ROLLED_BACK in version.tags else version.verdict
        of_version = [alias for alias, number in aliases.items() if number == version.number]
        name = version.tags.get(RUN_NAME, version.run_id)
        typer.echo(f"  {version.number:3}  {', '.join(of_version) or '-':10}  {state:11}  {name}")
    if champion:
        typer.echo(f"Champion: {champion.champion_line}")


@registry_app.command()
def promote(
    version: Annotated[int, typer.Argument(help="The number of the version.")],
    why: Why,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote it even if the gate blocked or never judged it."),
    ] = False,
) -> None:
    """Make VERSION the champion, by your own decision; from then on new data are compared with its data.

    If VERSION is the champion already, only its data are accepted: for data that drifted bit by bit.
    """
    from cgan.pipeline.registry.client import ACCEPTED_DATA, ACCEPTED_WHY, SUMMARY

    with _project_registry() as registry:
        wanted, champion = registry.version(version), registry.champion()
        if wanted == champion:
            registry.tag(version, {ACCEPTED_DATA: str(version), ACCEPTED_WHY: why})
            typer.echo(f"Version {version}, the champion: new data are compared with its data now.")
            return
        if wanted.verdict != "passed" and not force:
            state = wanted.tags.get(SUMMARY) or "`cgan gate` has not judged it."
            raise ModelError(
                f"version {version} of `{registry.model}` has not passed the gate: {state} "
                "`--force` promotes it anyway."
            )
        registry.promote(version, why=why, by_person=True)
    typer.echo(f"Version {version} is champion now: {why}")


@registry_app.command()
def rollback(why: Why) -> None:
    """Bring back the previous champion; the gate doesn't undo that."""
    with _project_registry() as registry:
        champion, replaced = registry.rollback(why)
    typer.echo(f"Version {champion} is champion again, in place of version {replaced}.")
