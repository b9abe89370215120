"""DVC stages, reproduced in a process group of their own. Knows DVC's command line, not Prefect.

DVC is called as a subprocess: its Python API would hide the stage's output from whoever asks, and a
crash of a stage would be a crash of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cgan.errors import CganError
from cgan.params.reading import read_yaml
from cgan.project import RUN_REFERENCE
from cgan.run.lifecycle import made_for
from flows import process_guard, remote_dvc

GRACE_S = 20.0  # for a training to write its checkpoint; a Prefect worker kills us after 30
KEPT_LINES = 20  # of output, for the message of a failure
BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
BROKEN = re.compile(r"dvc\.lock' (is invalid|validation failed)")
BLOCKER = re.compile(r"\(PID (\d+)\): (.*)")
# The evaluation's numbers to the MLflow run, where the stage record does not come.
NUMBERS = ("cgan.stages.record", "numbers")
TRAIN = "train"  # the stage that makes an MLflow run

Relay = Callable[[str], None]  # gets each line of output as it comes


class StageError(CganError):
    """A stage ended with an error of its own."""


class BusyError(CganError):
    """Another DVC process works in this repository."""


class Outcome(StrEnum):
    """What `dvc repro` did with a stage."""

    RAN = "ran"
    UNCHANGED = "unchanged"
    RESTORED = "restored from cache"


# DVC's own words, as of 3.67 (dvc/stage/run.py, stage/cache.py and stage/__init__.py).
WORDS = {
    "Running stage '{}'": Outcome.RAN,
    "Stage '{}' is cached - skipping run": Outcome.RESTORED,
    "Stage '{}' didn't change, skipping": Outcome.UNCHANGED,
    "Pulling data for stage: '{}'": Outcome.RESTORED,
    "Unable to pull data for stage: '{}'": None,  # what it did instead is said next
}


@dataclass(frozen=True)
class Stage:
    name: str
    description: str


def read_stages(path: Path | str = "dvc.yaml") -> list[Stage]:
    """The stages in the file's order: each stands after those whose outputs it reads."""
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        raise CganError(f"{path}: no stages in it. Restore it from git.")
    return [Stage(name, str(each.get("desc", ""))) for name, each in document["stages"].items()]


def choose(stages: Sequence[Stage], names: Sequence[str] | None) -> list[Stage]:
    """The stages named, in the pipeline's order; all of them when `names` is empty or None."""
    known = [stage.name for stage in stages]
    if unknown := [name for name in names or () if name not in known]:
        raise CganError(
            f"no stage named {', '.join(f'`{name}`' for name in unknown)}. "
            f"The stages in dvc.yaml are: {', '.join(known)}."
        )
    return [stage for stage in stages if not names or stage.name in names]


class Repro:
    """Stages reproduced by as few `dvc repro` as will do, for each takes a second to start.

    `stage` follows DVC to the end of one stage; DVC goes on with the next meanwhile. `close` ends what still
    runs. `context`: tags of the MLflow runs. With `tags`, which are among them, a training that DVC brings
    back from its cache runs again: it has an MLflow run already, which cannot get these. With `pull`,
    results that DVC's remote has are fetched and not made again; where the remote is away, a warning says
    so, and the stages run.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        context: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        pull: bool = False,
    ) -> None:
        self.names, self.context, self.tags, self.pull = list(names), context, tags or {}, pull
        self._process: subprocess.Popen[str] | None = None
        self._next = ""  # the line with which the next stage began

    def stage(self, name: str, relay: Relay, *, force: bool = False) -> Outcome:
        """Raises BusyError when another DVC process works here, StageError with the stage's own message when
        it ends with an error. On any exception, signals turned into one included, the whole process group
        is ended before it leaves: DVC alone would die and leave the training running.
        """
        if not self._process:
            batch = self.names[self.names.index(name) :]
            ends = [i for i, each in enumerate(batch, 1) if force or (self.tags and each == TRAIN)]
            arguments = ["repro", "--single-item", *batch[: ends[0] if ends else None]]
            arguments += ["--force"] * force + ["--pull"] * self.pull
            command = _dvc(arguments, remote=self.pull)
            self._process = _start(command, self.context, spared=True)
        lines: list[str] = []
        code = 0
        try:
            for line in self._until_the_next(self._process, name):
                lines.append(line)
                relay(line)
            if not self._next:
                code = self._process.wait()
                self._process = None
        except BaseException:
            self.close(relay)
            raise
        outcome = None  # what DVC said last of what it does with the stage
        for line in lines:
            for words, meaning in WORDS.items():
                if line.startswith(words.format(name)):
                    outcome = meaning
        if code and self.pull and outcome is not Outcome.RAN and not _busy(lines):
            relay(
                f"WARNING: {name}: nothing came from DVC's remote: {own_words(lines)}. It is made here."
            )
            self.pull = False
            return self.stage(name, relay, force=force)
        if code or not outcome:  # without either, a version of DVC that is not known here
            raise _failure(code, lines)
        if name == TRAIN and not force and not made_for(self.tags, RUN_REFERENCE):
            return self.stage(name, relay, force=True)
        return outcome

    def _until_the_next(self, process: subprocess.Popen[str], name: str) -> Iterator[str]:
        """The lines of this stage. The first of the next one is kept for later."""
        begins = [*WORDS, "ERROR: failed to reproduce '{}'"]  # it may fail before it runs
        others = [words.format(other) for other in self.names if other != name for words in begins]
        if self._next:
            yield self._next
            self._next = ""
        for line in _lines_of(process):
            if line.startswith(tuple(others)):
                self._next = line
                return
            yield line

    def close(self, relay: Relay = lambda _: None) -> None:
        if self._process:
            _end_group(self._process, relay)
        self._process, self._next = None, ""


def check_free() -> None:
    """Raise BusyError while another DVC process runs a stage in this repository."""
    _, lines = run_dvc(["status"], lambda _: None)
    if busy := _busy(lines):
        raise busy


def run_dvc(
    arguments: Sequence[str], relay: Relay, *, remote: bool = False
) -> tuple[int, list[str]]:
    """Run DVC in this interpreter's environment. Returns its exit code and all lines of output.

    `remote`: it reaches DVC's remote.
    """
    return _run(_dvc(arguments, remote), relay, None, spared=True)


def _dvc(arguments: Sequence[str], remote: bool) -> list[str]:
    # By path, for the working directory may have no flows/; -P, for beside it lies a dvc.py.
    return [*(["-P", remote_dvc.__file__] if remote else ["-m", "dvc"]), *arguments]


def run_own(module: Sequence[str], relay: Relay, context: Mapping[str, str] | None = None) -> None:
    """`python -m MODULE …` of the code in the working directory. `context`: tags of its MLflow run.

    Raises StageError with its own message when it ends with an error.
    """
    code, lines = _run(["-m", *module], relay, context, spared=False)
    if code:
        raise _failure(code, lines)


def _run(
    arguments: Sequence[str], relay: Relay, context: Mapping[str, str] | None, *, spared: bool
) -> tuple[int, list[str]]:
    process = _start(arguments, context, spared)
    lines: list[str] = []
    try:
        for line in _lines_of(process):
            lines.append(line)
            relay(line)
        return process.wait(), lines
    except BaseException:
        _end_group(process, relay)
        raise


def _start(
    arguments: Sequence[str], context: Mapping[str, str] | None, spared: bool
) -> subprocess.Popen[str]:
    """Python, in a process group that ends with us, however we end; `spared`: see process_guard.py."""
    home = str(Path(sys.executable).parent)  # so that `python` in a stage's command is this one
    guard = [sys.executable, process_guard.__file__, str(os.getpid()), str(GRACE_S)]
    return subprocess.Popen(
        [*guard, str(int(spared)), sys.executable, *arguments],
        env={
            **os.environ,
            "PATH": os.pathsep.join([home, os.environ.get("PATH", "")]),
            "PYTHONUNBUFFERED": "1",
            **({} if context is None else {"MLFLOW_RUN_CONTEXT": json.dumps(dict(context))}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Its lines, until the last process of its group has closed the pipe."""
    assert process.stdout
    for raw in process.stdout:
        if line := raw.rstrip():
            yield line
    process.stdout.close()


def _end_group(process: subprocess.Popen[str], relay: Relay) -> None:
    """Have the guard end its group, and relay the last words; SIGKILL where even the guard hangs."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    # The guard isn't waited for before the end: unreaped, it keeps the group's number from being reused.
    process.terminate()
    timer = threading.Timer(GRACE_S + 2, kill)
    timer.start()
    try:
        for line in _lines_of(process):
            with contextlib.suppress(BaseException):  # whoever reads may be what ended the run
                relay(line)
    finally:
        timer.cancel()
        kill()
        process.wait()


def _busy(lines: Sequence[str]) -> BusyError | None:
    output = "\n".join(lines)
    if not BUSY.search(output):
        return None
    if not (blocker := BLOCKER.search(output)):
        return BusyError("another DVC command holds this repository's lock. Wait until it ends.")
    pid, command = blocker.groups()
    return BusyError(
        f"another DVC process is at work in this repository: `{command}`, process {pid}. "
        "Wait until it ends. If it is dead or something else, remove .dvc/tmp/rwlock."
    )


def own_words(lines: Sequence[str]) -> str:
    """The last error that DVC names in its output."""
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or list(lines) or ["it said nothing"])[-1].removeprefix("ERROR: ").rstrip(".")


def _failure(code: int, lines: Sequence[str]) -> CganError:
    if busy := _busy(lines):
        return busy
    if any(map(BROKEN.search, lines)):
        return StageError(
            "DVC cannot read dvc.lock: DVC was killed while it wrote it, or a merge left conflicts in it. "
            "`git checkout dvc.lock` brings the committed one back; then start again."
        )
    own = "\n".join(lines).partition("\nERROR: failed to reproduce")[0]
    _, separator, message = f"\n{own}".rpartition("\nError: ")
    if separator:
        return StageError(message)
    return StageError(f"ended with exit code {code}:\n" + "\n".join(lines[-KEPT_LINES:]))
