"""Repeat a training that MLflow knows from its commit, params and data, and compare the bytes.

DVC runs the stages of then in a clone in a temporary folder, with a Home, a store and outputs of its own, and
restores nothing. Your tree and the registry stay as they are; DVC's cache gets no more than what `dvc pull`
brings, and the run the tag `cgan.reproduced`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cgan import git
from cgan.errors import CganError, SourceError, TrainingError
from cgan.files import sha256_of
from cgan.project import (
    CSV,
    CSV_SOURCE,
    DVC_PULL,
    GENERATOR,
    RUN_REFERENCE,
    project_root,
)
from cgan.registry.client import open_registry
from cgan.reports.recorded_run import (
    ANY,
    SHA_TAG,
    RecordedRun,
    find_run,
    hashes_in,
    require_repeatable,
)

Say = Callable[[str], None]
STAGES = ("validate", "preprocess", "train_judge", "train")
OUTCOME_TAG = "cgan.reproduced"
# What can round otherwise: tag of a run → words.
MACHINE = {
    "torch.version": "torch",
    "cgan.device": "device",
    "cgan.precision": "precision",
    "machine.cpu": "CPU",
    "machine.cores": "cores",
    "machine.omp_num_threads": "OMP_NUM_THREADS",
    "python.version": "Python",
}
NOT_OURS = ("MLFLOW_", "DVC_", "GIT_", "PREFECT_", "CGAN_")
GRACE_S = 20.0  # for a stage to end after SIGTERM: a training writes a checkpoint first
LAST_LINES = 15


@dataclass(frozen=True)
class Comparison:
    equal: bool
    text: str


def reproduce_run(what: str, say: Say, *, keep: bool = False) -> Comparison:
    """Repeat the training of a run id, an alias (`champion`) or `models:/NAME@ALIAS`, and compare.

    Raises CganError when it cannot be repeated: no such run, its commit or data is nowhere, a stage fails.
    `keep` leaves the clone behind.
    """
    root = project_root()
    for number in (signal.SIGTERM, signal.SIGINT):  # end in the normal way, and tidy up
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as at_the_end:
        folder = Path(tempfile.mkdtemp(prefix="cgan-reproduce-"))
        if not keep:
            at_the_end.callback(shutil.rmtree, folder, ignore_errors=True)
        run = find_run(what, folder)
        require_repeatable(run)
        say(f"run {run.id} · {run.name}")
        then, now = run.tags.get("torch.version"), importlib.metadata.version("torch")
        if then != now:
            say(f"made with torch {then}, here is {now}: the bytes may differ")
        tree = folder / "tree"
        say(f"commit {run.commit[:10]}")
        git.clone_at(root, run.commit, tree)
        for name in ("params.yaml", "dvc.lock"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(run.source / name, tree / name)
        _bring_csv(run, root, tree, say)
        _repeat(STAGES, run, tree, say)
        outcome = _compare(run, tree, folder)
        if keep:
            say(f"kept: {tree}")
        _tag_run(run, outcome)
    return outcome


def _bring_csv(run: RecordedRun, root: Path, tree: Path, say: Say) -> None:
    """The run's CSV, from wherever it still is, checked by its hash."""
    sha256 = run.tags.get("cgan.csv_sha256")
    here = CSV.parent
    places: dict[str, Callable[[], object]] = {
        str(root / CSV): lambda: shutil.copytree(root / here, tree / here, dirs_exist_ok=True),
        "DVC's cache or remote": lambda: _pull(run, root, tree),
        "the data source": lambda: _repeat(("download",), run, tree, say),
    }
    looked = []
    for place, bring in places.items():
        try:
            bring()
            if sha256_of(tree / CSV) == sha256:
                say(f"data from {place}")
                return
            looked.append(f"{place}: other content")
        except (OSError, CganError) as error:
            looked.append(f"{place}: {error}")
    raise SourceError(
        f"the data of run {run.id} is nowhere: looked for a CSV with sha256 {sha256}.\n  "
        + "\n  ".join(looked)
        + f"\nBring the file back as {CSV}, or into DVC's cache with {DVC_PULL}."
    )


def _pull(run: RecordedRun, root: Path, tree: Path) -> None:
    """By the run's dvc.lock, with the cache and the remote that the project has today."""
    for name in (".dvc/config", ".dvc/config.local"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(root / name, tree / name)
    cache = root / _dvc(run, tree, root, "cache", "dir")[-1].strip()
    _dvc(run, tree, tree, "cache", "dir", "--local", str(cache))
    _dvc(run, tree, tree, "pull", "--force", str(CSV), str(CSV_SOURCE))


def _repeat(stages: tuple[str, ...], run: RecordedRun, tree: Path, say: Say) -> None:
    def relay(line: str) -> None:
        """Which stage runs, and how far it says it is."""
        if begun := re.match(r"Running stage '(\w+)'", line):
            took = (
                f" (took {run.training_s:.0f} s)" if begun[1] == "train" and run.training_s else ""
            )
            say(f"{begun[1]}{took} …")
        elif line.endswith(" left\n"):
            say(f"  {line.strip()}")

    repro = ("repro", "--force", "--no-commit", "--single-item", *stages)
    _dvc(run, tree, tree, *repro, relay=relay)


def _dvc(
    run: RecordedRun, tree: Path, folder: Path, *arguments: str, relay: Say = lambda _: None
) -> list[str]:
    """Run DVC in `folder`, its stages on a machine set up like the run's where possible → its last lines.

    Raises TrainingError with them if it fails.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(NOT_OURS)}
    env |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(tree),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tree.parent / "dvc"),
        "CGAN_HOME": str(tree / ".cgan"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tree / 'mlflow.db'}",
    }
    if run.tags.get("cgan.device") == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""  # `auto` shall mean what it meant there
    threads = run.tags.get("machine.omp_num_threads")
    if threads == "not set":
        env.pop("OMP_NUM_THREADS", None)
    elif threads:
        env["OMP_NUM_THREADS"] = threads
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    last: deque[str] = deque(maxlen=LAST_LINES)
    with process:
        try:
            for line in process.stdout or ():
                last.append(line)
                relay(line)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE_S)  # DVC ends at once, its stage closes the pipe
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise TrainingError(
            f"`dvc {' '.join(arguments)}` ended with exit code {process.returncode} in the clone, which "
            f"`--keep` leaves behind:\n{''.join(last).rstrip()}"
        )
    return list(last)


def _compare(run: RecordedRun, tree: Path, folder: Path) -> Comparison:
    found, expected = sha256_of(tree / GENERATOR), run.tags[SHA_TAG]
    if found == expected:
        return Comparison(True, f"the same bytes: {found}")
    here = _tags_of_repeat(tree)
    differing = [
        f"{words}: {run.tags[tag]} then, {here[tag]} now"
        for tag, words in MACHINE.items()
        if tag in run.tags and tag in here and run.tags[tag] != here[tag]
    ]
    for path, now in hashes_in(tree / "dvc.lock").items():
        then = run.lock.get(path, now)
        if then != now:
            differing.append(f"{path}: md5 {then} then, {now} now")
    lines = [
        "NOT the same bytes.",
        f"  then  {expected}",
        f"  now   {found}",
        *([f"  weights: {words}"] if (words := _distance(run, tree, folder)) else []),
        "What differs:" if differing else "Nothing that is known to matter differs.",
        *(f"  {line}" for line in differing),
    ]
    return Comparison(False, "\n".join(lines))


def _tags_of_repeat(tree: Path) -> dict[str, str]:
    """Of the repeat's own run, in its throw-away store; empty when it did not arrive there."""
    from mlflow import MlflowClient

    with contextlib.suppress(Exception):  # it only explains: the comparison stands without it
        client = MlflowClient(f"sqlite:///{tree / 'mlflow.db'}")
        reference = json.loads((tree / RUN_REFERENCE).read_text(encoding="utf-8"))
        return dict(client.get_run(reference["run_id"]).data.tags)
    return {}


def _distance(run: RecordedRun, tree: Path, folder: Path) -> str:
    """How far apart the two generators are, in words; nothing when the run's is not to be had."""
    from cgan.model.model_file import load_tensors

    try:
        with open_registry(ANY) as registry:
            path = f"networks/{GENERATOR.name}"
            then = Path(registry.client.download_artifacts(run.id, path, str(folder)))
        (old, old_facts), (new, new_facts) = (
            load_tensors(file, "generator") for file in (then, tree / GENERATOR)
        )
    except CganError:
        return ""
    if old_facts["digest"] == new_facts["digest"]:
        names = [key for key in old_facts | new_facts if old_facts.get(key) != new_facts.get(key)]
        return f"equal to the last bit; only facts in the file differ: {', '.join(names)}"
    furthest = max((old[key].double() - new[key].double()).abs().max().item() for key in old)
    return f"at most {furthest:.2g} apart"


def _tag_run(run: RecordedRun, outcome: Comparison) -> None:
    """The outcome as a tag of the run; a store that went away meanwhile costs no more than that."""
    words = "the same bytes" if outcome.equal else outcome.text
    with contextlib.suppress(CganError), open_registry(ANY) as registry:
        text = f"{time.strftime('%Y-%m-%d %H:%M %Z')}: {words}"
        registry.client.set_tag(run.id, OUTCOME_TAG, text[:5000])
