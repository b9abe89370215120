"""What flows and sweeps ask of DVC in this process, and the commands that they start as children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.base.errors import CganError

if TYPE_CHECKING:
    from dvc.repo import Repo

CHECKPOINT_S = 20  # for a training to write its checkpoint; a Prefect worker kills us after 30
KEPT_LINES = 20  # of output, for the message of a failure
CONTEXT_VARIABLE = "MLFLOW_RUN_CONTEXT"  # tags of the MLflow runs that a child makes, as JSON

say = partial(print, flush=True)


@contextlib.contextmanager
def dvc_repo(folder: Path | None = None) -> Iterator[Repo]:
    """The DVC project in a folder, by default the working directory: one import where a command each takes
    a second. Raises CganError with DVC's words, also while a stage runs there."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder or Path.cwd())) as repo:
            yield repo
    except DvcException as error:
        raise CganError(str(error)) from None


def has_remote() -> bool:
    with dvc_repo() as repo:
        return "remote" in repo.config["core"]


def stale_stages() -> set[str]:
    with dvc_repo() as repo:
        return set(repo.status())


def run_child(
    *module: str,
    on_line: Callable[[str], None],
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    exit_codes: Sequence[int] = (0,),
) -> None:
    """`python -m MODULE …` in a folder; `variables`: more of its environment. It holds the locks that this
    process has on its folder and its checkout. `on_line` gets each line of its output.

    On any exception, signals turned into one included, its session is ended before this returns. Raises
    CganError with the last lines of its output, from an error message on, where its exit code is none of
    `exit_codes`.
    """
    # So that `python` in a stage's command is this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    last_lines = deque[str](maxlen=KEPT_LINES)
    with subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=folder,
        env={**env, **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        close_fds=False,  # but for those of locks none is inheritable
    ) as child:
        assert child.stdout
        try:
            for line in filter(None, map(str.rstrip, child.stdout)):
                last_lines.append(line)
                on_line(line)
        except BaseException:
            # Ctrl-C for the session: DVC leaves that to the stage that it runs, which saves a checkpoint.
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, signal.SIGINT)
                child.communicate(timeout=CHECKPOINT_S)
            with contextlib.suppress(ProcessLookupError):  # what is left
                os.killpg(child.pid, signal.SIGKILL)
            raise
    if child.returncode not in exit_codes:
        _, *message = "\n".join(["", *last_lines]).rpartition("\nError: ")
        raise CganError("".join(message).strip() or f"ended with exit code {child.returncode}")
