"""The `cgan` command. Heavy imports stay inside the commands that need them: `cgan --help` is instant."""

from __future__ import annotations

import sys

import typer

from cgan.errors import CganError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, judge and draw with a class-conditional DCGAN.",
)


def main() -> None:
    """Entry point: a CganError becomes one message and its exit code, never a traceback."""
    try:
        app()
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
