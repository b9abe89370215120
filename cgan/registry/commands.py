"""The commands `cgan registry …`."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cgan.registry.client import Registry

registry = typer.Typer(no_args_is_help=True, help="Versions of the generator; who is served.")
Number = Annotated[int, typer.Argument(help="Its number.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]


def _opened() -> AbstractContextManager[Registry]:
    from cgan.registry.client import model_name, open_registry

    return open_registry(model_name())


@registry.command("list")
def list_() -> None:
    """Every version with its verdict, and who was champion when, why and by whom."""
    from cgan.registry.history import list_versions

    with _opened() as found:
        typer.echo(list_versions(found.model, found.shown, found.versions()))


@registry.command()
def show(version: Number) -> None:
    """What is known of one version: what became of it, how good it is, what it was made from."""
    from mlflow.exceptions import MlflowException

    from cgan.registry.history import describe_version
    from cgan.store.pages import real_images

    with _opened() as found:
        known = found.version(version)
        numbers, reals = {}, {}
        with contextlib.suppress(MlflowException):  # the run may have been deleted
            run = found.client.get_run(known.run_id).data
            numbers, reals = run.metrics, real_images(run.tags)
        typer.echo(describe_version(found.model, known, numbers, reals))


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
