"""DVC stages, reproduced in a process group of their own. Knows DVC's command line, not Prefect.

DVC is called in another process: here its Python API would hide the stage's output from whoever asks, and a
crash of a stage would be a crash of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cgan.errors import CganError
from cgan.params.reading import read_yaml
from cgan.project import RUN_REFERENCE
from cgan.tracking.runs import made_for
from flows import dvc_process, process_guard

GRACE_S = 20  # for a training to write its checkpoint; a Prefect worker kills us after 30
KEPT_LINES = 20  # of output, for the message of a failure
BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
# Files that DVC cannot read, since it was killed while it wrote them, and what helps.
BROKEN = {
    r"dvc\.lock' (is invalid|validation failed)": (
        "DVC cannot read dvc.lock: DVC was killed while it wrote it, or a merge left conflicts in it. "
        "`git checkout dvc.lock` brings the committed one back; then start again."
    ),
    r"RWLock-file .* corrupted": (
        "DVC cannot read .dvc/tmp/rwlock: it was killed while it wrote it. `rm .dvc/tmp/rwlock`, then start "
        "again."
    ),
}
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


def choose(names: Sequence[str] | None) -> list[Stage]:
    """The stages named, in the pipeline's order; all of them when `names` is empty or None."""
    stages = read_stages()
    known = [stage.name for stage in stages]
    if unknown := [name for name in names or () if name not in known]:
        raise CganError(
            f"no stage named {', '.join(f'`{name}`' for name in unknown)}. "
            f"The stages in dvc.yaml are: {', '.join(known)}."
        )
    return [stage for stage in stages if not names or stage.name in names]


class Child:
    """Python in a process group of its own, which ends with this process, however that ends.

    `context`: tags of the MLflow runs that it makes.
    """

    def __init__(self, *arguments: str, context: Mapping[str, str] | None = None) -> None:
        home = str(Path(sys.executable).parent)  # so that `python` in a stage's command is this one
        guard = [sys.executable, process_guard.__file__, str(GRACE_S)]
        self._process = subprocess.Popen(
            [*guard, sys.executable, *arguments],
            env={
                **os.environ,
                "PATH": os.pathsep.join([home, os.environ.get("PATH", "")]),
                "PYTHONUNBUFFERED": "1",
                **({} if context is None else {"MLFLOW_RUN_CONTEXT": json.dumps(dict(context))}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def read(self, relay: Relay, last: str | None = None) -> list[str]:
        """Its lines, up to one that begins with `last`, which is not relayed, or to its end.

        On any exception, signals turned into one included, the group is ended before it leaves.
        """
        lines: list[str] = []
        try:
            for line in filter(None, map(str.rstrip, self.stdout)):
                lines.append(line)
                if last and line.startswith(last):
                    break
                relay(line)
        except BaseException:
            self.close(relay)
            raise
        return lines

    def close(self, relay: Relay = lambda _: None) -> int:
        """Have the guard end the group, if it has not ended; relay the last words."""
        self.stdin.close()
        for line in self.stdout if not self.stdout.closed else ():
            with contextlib.suppress(BaseException):  # whoever reads may be what ended the run
                relay(line.rstrip())
        self.stdout.close()
        return self._process.wait()


class Dvc(Child):
    """DVC in the working directory, one command after the other."""

    def __init__(self, context: Mapping[str, str] | None = None) -> None:
        # By path, for the working directory may have no flows/; -P, for beside it lies a dvc.py.
        super().__init__("-P", dvc_process.__file__, context=context)

    def run(self, arguments: Sequence[str], relay: Relay) -> tuple[int, list[str]]:
        """The exit code of a command, and all lines of its output."""
        self.stdin.write(f"{json.dumps(arguments)}\n")
        self.stdin.flush()
        *lines, end = self.read(relay, dvc_process.MARK) or [""]
        if end.startswith(dvc_process.MARK):
            return int(end.removeprefix(dvc_process.MARK)), lines
        return self.close() or 1, [*lines, end]


class Repro(Dvc):
    """Stages reproduced, each by a `dvc repro`.

    `context`: tags of the MLflow runs. With `tags`, which are among them, a training that DVC brings back
    from its cache runs again: it has an MLflow run already, which cannot get these. With `pull`, results that
    DVC's remote has are fetched and not made again; where the remote is away, a warning says so, and the
    stages run.
    """

    def __init__(
        self,
        *,
        context: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        pull: bool = False,
    ) -> None:
        super().__init__(context)
        self.tags, self.pull = tags or {}, pull

    def stage(self, name: str, relay: Relay, force: bool = False) -> Outcome:
        """Raises BusyError when another DVC process works here, StageError with the stage's own message when
        it ends with an error."""
        arguments = ["repro", "--single-item", name, *["--force"] * force, *["--pull"] * self.pull]
        code, lines = self.run(arguments, relay)
        outcome = None  # what DVC said last of what it does with the stage
        for line in lines:
            for words, meaning in WORDS.items():
                if line.startswith(words.format(name)):
                    outcome = meaning
        error = _failure(code, lines)
        unfetched = self.pull and outcome is not Outcome.RAN and not isinstance(error, BusyError)
        if code and unfetched and not self.stdin.closed:  # it is, when DVC itself has died
            relay(
                f"WARNING: {name}: nothing came from DVC's remote: {own_words(lines)}. It is made here."
            )
            self.pull = False
            return self.stage(name, relay, force)
        if code or not outcome:  # without either, a version of DVC that is not known here
            raise error
        if name == TRAIN and not force and not made_for(self.tags, RUN_REFERENCE):
            return self.stage(name, relay, force=True)
        return outcome


def run_dvc(arguments: Sequence[str], relay: Relay) -> tuple[int, list[str]]:
    """The exit code of one DVC command, and all lines of its output."""
    with contextlib.closing(Dvc()) as dvc:
        return dvc.run(arguments, relay)


def has_remote() -> bool:
    """Has this working tree a default DVC remote?"""
    return run_dvc(["remote", "default"], lambda _: None)[0] == 0


def check_free() -> None:
    """Raise BusyError while another DVC process runs a stage in this repository."""
    error = _failure(*run_dvc(["status"], lambda _: None))
    if isinstance(error, BusyError):
        raise error


def run_own(module: Sequence[str], relay: Relay, context: Mapping[str, str] | None = None) -> None:
    """`python -m MODULE …` of the code in the working directory. `context`: tags of its MLflow run.

    Raises StageError with its own message when it ends with an error.
    """
    child = Child("-m", *module, context=context)
    lines = child.read(relay)
    if code := child.close():
        raise _failure(code, lines)


def own_words(lines: Sequence[str]) -> str:
    """The last error that DVC names in its output."""
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or list(lines) or ["it said nothing"])[-1].removeprefix("ERROR: ").rstrip(".")


def _failure(code: int, lines: Sequence[str]) -> CganError:
    text = "\n".join(lines)
    if BUSY.search(text):
        return BusyError(text.partition("ERROR: ")[2])
    for broken, advice in BROKEN.items():
        if re.search(broken, text):
            return StageError(advice)
    own = text.partition("\nERROR: failed to reproduce")[0]
    _, separator, message = f"\n{own}".rpartition("\nError: ")
    if separator:
        return StageError(message)
    return StageError(f"ended with exit code {code}:\n" + "\n".join(lines[-KEPT_LINES:]))
