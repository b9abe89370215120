"""How a task does its work: `dvc repro` of a stage, or a command, as a child in a session of its own."""

import contextlib
import itertools
import json
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from cgan.errors import CganError
from cgan.files import locked
from cgan.hosts import no_proxy_variables, without_credentials
from flows.turns import check_own_run

CHECKPOINT_S = 20  # for a training to write its checkpoint; a Prefect worker kills us after 30
CHECK_EVERY_S = 60.0  # whether the run may go on
KEPT_LINES = 20  # of output, for the message of a failure
FOLDER_LOCK = Path(".cgan/flow.lock")  # held by a run in this folder, and by its children
LEVELS = {"ERROR": logging.ERROR, "Error": logging.ERROR, "WARNING": logging.WARNING}
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


def repro(stages: Stages, stage: str, force: bool = False) -> State[Any]:
    """Bring a stage up to date. Returns the state of its task: Completed, *Unchanged* or Failed."""
    try:
        if not force and stage != stages.names[0] and stage in stages.unchanged:
            return Completed(name="Unchanged", message="not stale")
    except CganError as error:
        return Failed(message=str(error))
    options = []
    if force:
        options.append("--force")
    if stages.remote:
        options.append("--pull")
    return run_module("dvc", "repro", "--single-item", stage, *options)


def run_module(*module: str, exit_codes: Sequence[int] = (0,)) -> State[Any]:
    """`python -m MODULE …`, its output in the run's log. Failed where `in_session` or `check_own_run`
    raises."""
    requester = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
        "prefect.deployment_id": runtime.deployment.id,
    }
    tags = {name: str(value) for name, value in requester.items() if value}
    variables = {CONTEXT_VARIABLE: json.dumps(tags)}
    try:
        in_session(
            *module,
            on_line=log_line,
            check=check_own_run,
            variables=variables,
            exit_codes=exit_codes,
        )
    except CganError as error:
        return Failed(message=str(error))
    return Completed()


def log_line(line: str) -> None:
    """Into the run's log."""
    get_run_logger().log(LEVELS.get(line.partition(":")[0], logging.INFO), "%s", line)


@contextlib.contextmanager
def exclusive_folder(say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other run works in this folder, nor what one that was killed had started: that holds the
    lock, too."""
    with locked(FOLDER_LOCK, wait=False) as is_free:
        if not is_free:
            say("Another run is working in this folder. This one waits until it ends.")
    with locked(FOLDER_LOCK, inherited=True):
        yield


def in_session(
    *module: str,
    on_line: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    exit_codes: Sequence[int] = (0,),
) -> None:
    """`python -m MODULE …` in a folder; `variables`: more of its environment. It holds the locks that this
    process has on its folder and its checkout. `on_line` gets each line of its output; `check` is called once
    a minute.

    On any exception, signals turned into one included, its session is ended before this returns. Raises
    CganError with the last error message in its output, else its last lines, where its exit code is none of
    `exit_codes`.
    """
    lines: list[str] = []
    child = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=folder,
        env={
            **os.environ,
            **no_proxy_variables(os.environ),
            **(variables or {}),
            # So that `python` in a stage's command is this one.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=False,  # but for those of locks none is inheritable
    )
    with child:
        assert child.stdout
        try:
            for line in _lines_of(child.stdout.fileno(), check):
                lines.append(line)
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
        errors = [index for index, line in enumerate(lines) if line.startswith("Error: ")]
        message = lines[errors[-1] :] if errors else lines[-KEPT_LINES:]
        raise CganError("\n".join(message or [f"ended with exit code {child.returncode}"]))


def _lines_of(pipe: int, check: Callable[[], None]) -> Iterator[str]:
    """The lines that come through a pipe, without empty ones, until its end. `check` is called once a minute,
    also while no line comes."""
    due = time.monotonic() + CHECK_EVERY_S
    unfinished = b""  # the line whose end has not come yet
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(max(0.0, due - time.monotonic())):
                chunk = os.read(pipe, 65536)
                *lines, unfinished = re.split(rb"[\r\n]+", unfinished + (chunk or b"\n"))
                for line in lines:
                    if text := line.decode(errors="replace").rstrip():
                        yield text
                if not chunk:
                    return
            if time.monotonic() >= due:
                check()
                due = time.monotonic() + CHECK_EVERY_S


def output_of(
    *command: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """The output of a command that takes a moment. Raises CganError with its error message."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        message = (done.stderr.strip() or done.stdout.strip())[-2000:]
        if "dvc.lock'" in message:
            message += "\n`git checkout dvc.lock` brings back the committed one."
        raise CganError(f"{' '.join(command)}, in {folder or Path.cwd()}, failed:\n{message}")
    return done.stdout.rstrip()


def dvc(*arguments: str, folder: Path | None = None) -> str:
    return output_of(sys.executable, "-m", "dvc", *arguments, folder=folder)


def has_remote(folder: Path | None = None) -> bool:
    """Whether DVC has a default remote there."""
    return "core.remote=" in dvc("config", "--list", folder=folder)


def require_prefect() -> None:
    """Start Prefect's temporary server, if none is configured. Raises CganError where neither answers."""
    # Ctrl-C goes to every process of the group, and that server has to live on for a moment to record how the
    # run ended. Blocked signals are inherited.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            failure = client.api_healthcheck()
    except RuntimeError as late:
        failure = late
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    site = without_credentials(PREFECT_API_URL.value() or "")
    if failure and site:
        raise CganError(
            f"Prefect's API at PREFECT_API_URL, {site}, cannot be used ({failure!r}). `make up` starts a "
            "server and prints the address to set; without one, unset it."
        )
    if failure:
        raise CganError(
            f"Prefect's temporary server did not start in time ({failure}). Run this again when the machine "
            "is less busy, or set PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to more seconds."
        )
