"""How a stage runs: errors in words, sources unchanged."""

import atexit
import errno
import gc
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cgan.base.errors import CganError
from cgan.base.files import sha256_of
from cgan.pipeline.project import PACKAGE

# As torch says it of the host and of CUDA: RuntimeErrors, both.
NO_MEMORY = ("can't allocate memory", "out of memory", "can't start new thread")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's `main`, with log lines on stdout. What the user can mend ends it with a message alone.

    Fails when params.yaml or a module that the stage imported changed while it ran: DVC hashes them
    after the stage, so dvc.lock would pair the new text with results of the old (treeverse/dvc#11058).
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    atexit.register(gc.freeze)  # else Python's last collection takes .5 s after torch's imports
    before = _sources()
    try:
        stage()
        _refuse_changes(before)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        message = _message_of(error)
        if not message:
            raise
        sys.stdout.flush()
        sys.stderr.write(f"Error: {message}\n")
        sys.exit(1)


def _message_of(error: Exception) -> str:
    """The message for a CganError, no memory, or an OSError about a file; empty for any other error."""
    if isinstance(error, CganError):
        return str(error)
    again = "Then run `dvc repro` again: a training goes on from its last checkpoint."
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        details = str(error).partition("\n")[0][:200] or "no details"
        advice = "End other programs, lower `train.batch_size`, or set `train.device: cpu`"
        return f"out of memory ({details}). {advice}. {again}"
    if isinstance(error, OSError) and error.filename:
        advice = "Free some space. " if error.errno in NO_SPACE else "Mend that. "
        return f"{error.filename}: {error.strerror}. {advice}{again}"
    return ""


def _sources() -> dict[Path, str]:
    """Hashes of params.yaml and of our whole package: a stage may yet import any of it."""
    files = [Path("params.yaml"), *PACKAGE.rglob("*.py")]
    return {file: sha256_of(file) for file in files if file.is_file()}


def _refuse_changes(before: dict[Path, str]) -> None:
    # By file, not by name: the stage's own module is called `__main__`.
    loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    used = {Path("params.yaml"), *map(Path, filter(None, loaded))}
    changed = {path.name for path, _ in before.items() ^ _sources().items() if path in used}
    if changed:
        raise CganError(
            f"{', '.join(sorted(changed))} changed while the stage ran, so its results belong to the earlier "
            "version. Run `dvc repro` again. To edit during a run, use a separate clone."
        )
