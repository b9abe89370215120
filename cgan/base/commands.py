"""Our own command lines, and commands that take a moment, for what they print. Of those that take minutes,
`flows.children` shows the lines as they come."""

import atexit
import gc
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cgan.base.errors import CganError

SERVERS = ("anyio", "fastapi", "prometheus_client", "uvicorn")
EXTRA_OF = {**dict.fromkeys(SERVERS, "serve"), "optuna": "sweep"}  # of packages; else `pipeline`


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


def run_app(app: Callable[[], object]) -> None:
    """Run a command line: an error that the user can mend is one message and exit code 1, no traceback."""
    gc.set_threshold(50_000)  # else collections take .4 s of MLflow's imports,
    atexit.register(gc.freeze)  # and .7 s after the end
    try:
        app()
        return
    except ModuleNotFoundError as error:
        if (error.name or "cgan").startswith("cgan"):
            raise
        extra = EXTRA_OF.get(error.name or "", "pipeline")
        message = f"there is no package {error.name} here: `pip install 'cgan[{extra}]'` brings it."
    except (CganError, OSError, MemoryError) as error:
        message = str(error) or type(error).__name__
    sys.stderr.write(f"Error: {message}\n")
    sys.exit(1)
