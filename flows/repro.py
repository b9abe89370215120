"""How a task does its work: `dvc repro` of a stage, or a command, as a child in a session of its own; and
what a flow run shows in Prefect beside its state: a page with the verdict, the drawings, links."""

import base64
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
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from cgan.errors import CganError
from cgan.evaluation import Evaluation
from cgan.files import locked, read_json
from cgan.hosts import beside_proxies, is_server, mlflow_page, without_credentials
from cgan.markdown import in_markdown, table
from cgan.project import EVALUATION, GATE_REPORT, GATE_TEXT, GRID, RUN_PAGE, RUN_REFERENCE
from cgan.quality.table import quality_line
from flows.turns import require_turn

GRACE_S = 20  # for a training to write its checkpoint; a Prefect worker kills us after 30
CHECK_EVERY_S = 60.0  # whether the run may go on
KEPT_LINES = 20  # of output, for the message of a failure
LOCK = Path(".cgan/flow.lock")  # held by a run in this folder, and by its children
LEVELS = {"ERROR": logging.ERROR, "Error": logging.ERROR, "WARNING": logging.WARNING}
CONTEXT = "MLFLOW_RUN_CONTEXT"  # tags of the MLflow runs that a child makes, as JSON

say = partial(print, flush=True)


@dataclass
class Work:
    """What the tasks of a run share."""

    stages: Sequence[str]
    refresh: bool = False
    remote: bool = False  # results come from DVC's remote, and go there

    @cached_property
    def unchanged(self) -> list[str]:
        """All before the first stale one. Asked once, after params were checked and data fetched again."""
        stale = json.loads(dvc("status", "--json"))
        return list(itertools.takewhile(lambda name: name not in stale, self.stages))


def repro(work: Work, stage: str, force: bool = False) -> State[Any]:
    """Bring a stage up to date. What becomes the state of its task: Completed, *Unchanged* or Failed."""
    try:
        if not force and stage != work.stages[0] and stage in work.unchanged:
            return Completed(name="Unchanged", message="not stale")
    except CganError as error:
        return Failed(message=str(error))
    options = []
    if force:
        options.append("--force")
    if work.remote:
        options.append("--pull")
    return run("dvc", "repro", "--single-item", stage, *options)


def run(*module: str, exit_codes: Sequence[int] = (0,)) -> State[Any]:
    """`python -m MODULE …`, its output in the run's log. Failed where `in_session` or `require_turn`
    raises."""
    origin = {"flow_run_id": runtime.flow_run.id, "flow_run_name": runtime.flow_run.name}
    origin["deployment_id"] = runtime.deployment.id
    context = {f"prefect.{name}": str(value) for name, value in origin.items() if value}
    variables = {CONTEXT: json.dumps(context)}
    try:
        in_session(
            *module, relay=relay, check=require_turn, variables=variables, exit_codes=exit_codes
        )
    except CganError as error:
        return Failed(message=str(error))
    return Completed()


def relay(line: str) -> None:
    get_run_logger().log(LEVELS.get(line.partition(":")[0], logging.INFO), "%s", line)


@contextlib.contextmanager
def folder_to_itself(say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other run works in this folder, nor what one that was killed had started: that holds the
    lock, too."""
    with locked(LOCK, wait=False) as is_free:
        if not is_free:
            say("Another run is working in this folder. This one waits until it ends.")
    with locked(LOCK, inherited=True):
        yield


def in_session(
    *module: str,
    relay: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    exit_codes: Sequence[int] = (0,),
) -> None:
    """`python -m MODULE …` in a folder; `variables`: more of its environment. It holds the locks that this
    process has on its folder and its checkout. `relay` takes each line of its output; `check` is called once
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
            **beside_proxies(os.environ),
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
                relay(line)
        except BaseException:
            # Ctrl-C for the session: DVC leaves that to the stage that it runs, which saves a checkpoint.
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, signal.SIGINT)
                child.communicate(timeout=GRACE_S)
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
    begun = b""  # a line whose end has not come yet
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(max(0.0, due - time.monotonic())):
                chunk = os.read(pipe, 65536)
                *lines, begun = re.split(rb"[\r\n]+", begun + (chunk or b"\n"))
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
    """What a command that takes a moment prints. Raises CganError with its error message."""
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
            away = client.api_healthcheck()
    except RuntimeError as late:
        away = late
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if away:
        site = without_credentials(PREFECT_API_URL.value() or "")
        raise CganError(
            f"Prefect's API at PREFECT_API_URL, {site}, cannot be used ({away!r}). `make up` starts a server "
            "and prints the address to set; without one, unset it."
            if site
            else f"Prefect's temporary server did not start in time ({away}). Run this again when the "
            "machine is less busy, or set PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to more seconds."
        )


def publish(judged: bool) -> str:
    """The artifact `run`. Returns one sentence, the run's message: why the gate decided so, if it did."""
    if judged:
        text = GATE_TEXT.read_text(encoding="utf-8")
        summary = str(read_json(GATE_REPORT)["summary"])
    else:
        evaluation = Evaluation.read(EVALUATION)
        head, *rows = evaluation.table()
        text, summary = table(head, rows, 3), quality_line(evaluation)
    parts = [text, _mlflow_run(read_json(RUN_REFERENCE))]
    # With its bytes in it: a page would not find a file.
    grid = base64.b64encode(GRID.read_bytes()).decode()
    parts.append(f"![A row for each class](data:image/png;base64,{grid})")
    words = "The verdict, the drawings, and where the run is in MLflow"
    create_markdown_artifact("\n\n".join(filter(None, parts)), key="run", description=words)
    return summary


def _mlflow_run(run: dict[str, Any]) -> str:
    """Links to the generator's run and to its page, if a server shows them; else how to see it."""
    if not run.get("run_id"):
        return ""
    # `make up` serves the store that the stages write to as a file.
    site = os.environ.get("CGAN_MLFLOW_PAGE") or str(run.get("tracking_uri") or "")
    run_id, experiment_id = run["run_id"], str(run.get("experiment_id") or 0)
    if not is_server(site):
        name = in_markdown(run.get("run_name"))
        return f"`make ui` shows the MLflow run **{name}**, id `{run_id}`."
    in_mlflow = mlflow_page(site, experiment_id, run_id)
    html = mlflow_page(site, experiment_id, run_id, RUN_PAGE.name)
    return f"[The MLflow run]({in_mlflow}) · [the page of the run]({html})"
