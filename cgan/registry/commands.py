"""The commands `cgan registry …`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from cgan.errors import CganError, ModelError, printable

if TYPE_CHECKING:
    from cgan.registry.client import Registry

registry = typer.Typer(no_args_is_help=True, help="Versions of the generator, and which is served.")
Number = Annotated[int, typer.Argument(help="The number of the version.")]


def _in_a_line(why: str) -> str:
    """Printable: an argument may hold bytes that the locale cannot read, and no store takes."""
    if not why.strip():
        raise CganError("--why: give the reason in a few words, for the history.")
    return printable(" ".join(why.split()))[:500]


Why = Annotated[
    str, typer.Option("--why", callback=_in_a_line, help="The reason, for the history.")
]


def _opened() -> AbstractContextManager[Registry]:
    from cgan.project import require_project
    from cgan.registry.client import model_name, open_registry

    require_project()
    return open_registry(model_name())


@registry.command("list")
def list_() -> None:
    """List all versions with their verdicts, and all champions: since when, why and by whom."""
    from cgan.registry.client import ROLLED_BACK, RUN_NAME, lineage

    with _opened() as found:
        versions, champion = found.versions(), found.champion()
    if not versions:
        typer.echo(f"`{found.model}` has no versions yet: `dvc repro`, then `cgan gate`.")
        return
    typer.echo(f"Versions of `{found.model}` in {found.shown}:")
    for each in versions:
        state = "rolled back" if ROLLED_BACK in each.tags else each.verdict
        name, aliases = each.tags.get(RUN_NAME, each.run_id), ", ".join(each.aliases) or "-"
        typer.echo(f"  {each.number:3}  {aliases:10}  {state:11}  {name}")
    typer.echo("\nChampions, the latest first:")
    for each in reversed(lineage(versions, champion)):
        typer.echo(f"  {each.reign}")


@registry.command()
def promote(
    version: Number,
    why: Why,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote it even if the gate blocked or never judged it."),
    ] = False,
) -> None:
    """Make VERSION the champion, by your own decision."""
    from cgan.registry.client import SUMMARY, numbered

    with _opened() as found:
        wanted, champion = found.version(version), found.champion()
        if version == champion:
            raise ModelError(f"version {version} of `{found.model}` is the champion already.")
        if wanted.verdict != "passed" and not force:
            state = wanted.tags.get(SUMMARY) or "`cgan gate` has not judged it."
            raise ModelError(
                f"version {version} of `{found.model}` has not passed the gate: {state} "
                "`--force` promotes it all the same."
            )
        found.promote(version, instead_of=champion, why=why)
    typer.echo(f"Version {version} is champion in place of {numbered(champion)}: {why}")


@registry.command()
def rollback(why: Why) -> None:
    """Bring back the previous champion; the gate doesn't undo that."""
    with _opened() as found:
        brought, left = found.rollback(why)
    typer.echo(f"Version {brought} is champion again, in place of version {left}.")
