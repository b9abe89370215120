"""The commands `cgan gate`, `cgan status` and `cgan registry …`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from cgan.base.errors import CganError, ModelError
from cgan.base.text import printable
from cgan.pipeline.options import PRODUCTION_PANEL, announce
from cgan.pipeline.project import BLOCKED_EXIT_CODE, require_project

if TYPE_CHECKING:
    from cgan.pipeline.registry.client import Registry

app = typer.Typer()
versions = typer.Typer(no_args_is_help=True, help="List versions; promote one; roll back.")


def _in_a_line(why: str) -> str:
    """Printable: an argument may hold bytes that the locale cannot read, and no store takes."""
    if not why.strip():
        raise CganError("--why: give the reason in a few words, for the history.")
    return printable(" ".join(why.split()))[:500]


Number = Annotated[int, typer.Argument(help="The number of the version.")]
Why = Annotated[
    str, typer.Option("--why", callback=_in_a_line, help="The reason, for the history.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Promote it even if the gate blocked or never judged it.")
]


def _project_registry() -> AbstractContextManager[Registry]:
    from cgan.pipeline.registry.client import model_name, open_registry

    require_project()
    announce("Asking MLflow's registry …")
    return open_registry(model_name())


@versions.command("list")
def list_() -> None:
    """List all versions with their verdicts, and the champion: since when, why and by whom."""
    from cgan.pipeline.registry.client import CHAMPION, ROLLED_BACK, RUN_NAME

    with _project_registry() as registry:
        found, aliases = registry.versions(), registry.aliases()
    typer.echo(f"Versions of `{registry.model}` in {registry.address}: {len(found)}")
    for version in found:
        state = "rolled back" if ROLLED_BACK in version.tags else version.verdict
        of_version = [alias for alias, number in aliases.items() if number == version.number]
        name = version.tags.get(RUN_NAME, version.run_id)
        typer.echo(f"  {version.number:3}  {', '.join(of_version) or '-':10}  {state:11}  {name}")
    for version in found:
        if version.number == aliases.get(CHAMPION):
            typer.echo(f"Champion: {version.champion_line}")


@versions.command()
def promote(version: Number, why: Why, force: Force = False) -> None:
    """Make VERSION the champion, by your own decision; from then on new data are compared with its data.

    Of the present champion it says the latter alone: so you accept data that the gate let pass bit by bit.
    """
    from cgan.pipeline.registry.client import ACCEPTED_DATA, SUMMARY

    with _project_registry() as registry:
        wanted, champion = registry.version(version), registry.champion_number()
        if version == champion:
            registry.tag(version, {ACCEPTED_DATA: str(version)})
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


@versions.command()
def rollback(why: Why) -> None:
    """Bring back the previous champion; the gate doesn't undo that."""
    with _project_registry() as registry:
        champion, replaced = registry.rollback(why)
    typer.echo(f"Version {champion} is champion again, in place of version {replaced}.")


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
