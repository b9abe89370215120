"""The commands `cgan registry …`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cgan.registry.client import Registry

registry = typer.Typer(no_args_is_help=True, help="Versions of the generator; who is served.")
Number = Annotated[int, typer.Argument(help="Its number.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]


def _opened() -> AbstractContextManager[Registry]:
    from cgan.project import require_project
    from cgan.registry.client import model_name, open_registry

    require_project()
    return open_registry(model_name())


@registry.command("list")
def list_() -> None:
    """Every version with its verdict, and who was champion when, why and by whom."""
    from cgan.registry.history import RUN_NAME, aligned, lineage

    with _opened() as found:
        versions, champion = found.versions(), found.champion()
    if not versions:
        typer.echo(f"`{found.model}` has no versions yet: `dvc repro`, then `cgan gate`.")
        return
    rows = [("version", "alias", "verdict", "registered", "run")]
    for each in versions:
        name, aliases = each.tags.get(RUN_NAME, each.run_id), ", ".join(each.aliases)
        rows.append((str(each.number), aliases, each.state, each.registered, name))
    line = " → ".join(map(str, lineage(versions, champion))) or "none"
    typer.echo(f"Versions of `{found.model}` in {found.shown}:\n{aligned(rows)}\n")
    reigns = sorted((f"  {each.reign}" for each in versions if each.reign), reverse=True)
    typer.echo("\n".join([f"Champions, latest last: {line}", *reigns]))


@registry.command()
def promote(
    version: Number,
    why: Why,
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that the gate blocked or never judged.")
    ] = False,
) -> None:
    """Make VERSION the champion by a person's decision."""
    from cgan.errors import CganError, ModelError
    from cgan.registry.history import SUMMARY, numbered

    if not why.strip():
        raise CganError("--why: say in a few words why; the history keeps it.")
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
    typer.echo(f"Version {version} is champion in place of {numbered(champion)}: {why.strip()}")


@registry.command()
def rollback(why: Why) -> None:
    """Bring back the champion before this one; the gate doesn't undo it."""
    with _opened() as found:
        brought, left = found.rollback(why)
    typer.echo(f"Version {brought} is champion again, in place of version {left}.")
