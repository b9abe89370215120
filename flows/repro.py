"""How a task does its work: `dvc repro` of a stage, or a command, as a child in a session of its own."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed

from cgan.base.commands import output_of
from cgan.base.errors import CganError

CHECKPOINT_S = 20  # for a training to write its checkpoint; a Prefect worker kills us after 30
KEPT_LINES = 20  # of output, for the message of a failure
CONTEXT_VARIABLE = "MLFLOW_RUN_CONTEXT"  # tags of the MLflow runs that a child makes, as JSON

say = partial(print, flush=True)


@dataclass
class Stages:
    """What the tasks of a flow run know of the stages. `names`: of all, in order."""

    names: Sequence[str]
    refresh: bool = False
    remote: bool = False  # results come from DVC's remote, and go there

    @cached_property
    def unchanged(self) -> list[str]:
        """The stages before the first stale one. Asked once, after params were checked and data fetched
        again."""
        stale = json.loads(dvc("status", "--json"))
        return list(itertools.takewhile(lambda name: name not in stale, self.names))


def repro(stages: Stages, stage: str) -> State[Any]:
    """Bring a stage up to date. Returns the state of its task: Completed, *Unchanged* or Failed."""
    force = stages.refresh and stage == "download"
    try:
        if not force and stage != stages.names[0] and stage in stages.unchanged:
            return Completed(name="Unchanged", message="not stale")
    except CganError as error:
        return Failed(message=str(error))
    options = ["--force"] * force + ["--pull"] * stages.remote
    return run_module("dvc", "repro", "--single-item", stage, *options)


def run_module(*module: str, exit_codes: Sequence[int] = (0,)) -> State[Any]:
    """`python -m MODULE …`, its output in the run's log. Failed where `in_session` raises."""
    run = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
    }
    variables = {CONTEXT_VARIABLE: json.dumps(run)}
    try:
        in_session(*module, on_line=log_line, variables=variables, exit_codes=exit_codes)
    except CganError as error:
        return Failed(message=str(error))
    return Completed()


def log_line(line: str) -> None:
    """Into the run's log."""
    get_run_logger().info("%s", line)


def in_session(
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
    known = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    last_lines = deque[str](maxlen=KEPT_LINES)
    with subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=folder,
        env={**known, **(variables or {})},
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


def dvc(*arguments: str, folder: Path | None = None) -> str:
    return output_of(sys.executable, "-m", "dvc", *arguments, folder=folder).decode().rstrip()


def has_remote(folder: Path | None = None) -> bool:
    """Whether DVC has a default remote there."""
    return "core.remote=" in dvc("config", "--list", folder=folder)


def require_prefect() -> None:
    """Start Prefect's temporary server, if none is configured. Raises CganError where none answers."""
    # Ctrl-C goes to every process of the group, and that server has to live on for a moment to record how the
    # run ended. Blocked signals are inherited.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            failure = client.api_healthcheck()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if failure:
        raise CganError(
            f"Prefect's server at PREFECT_API_URL cannot be used ({failure!r}). `make up` starts one."
        )
