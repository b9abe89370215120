"""Runs a command that takes a moment, for what it prints. Of those that take minutes, `flows.children` shows
the lines as they come."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from cgan.base.errors import CganError


class CommandError(CganError):
    """A command is missing, or ended with an error."""


def output_of(
    *command: str | Path, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> bytes:
    """Output of a command. Raises CommandError with the command's own words."""
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace")
        raise CommandError(words.strip()[-1000:] or f"{command[0]}: exit code {done.returncode}")
    return done.stdout
