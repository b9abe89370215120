"""Repeat a training that MLflow knows from its commit, params and data, and compare the bytes.

This happens in a clone in a temporary folder, with a Home, a store and outputs of its own. Your tree, DVC's
cache and the registry stay as they are; the run gets the tag `cgan.reproduced`. The stages run for real;
nothing is restored from a cache.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cgan import git
from cgan.data.sources import find_file, unpack
from cgan.errors import CganError, SourceError, TrainingError
from cgan.files import md5_of, sha256_of
from cgan.project import (
    CSV,
    DVC_PULL,
    GENERATOR,
    HOLDOUT_DATA,
    JUDGE,
    RUN_REFERENCE,
    TRAIN_DATA,
    project_root,
)
from cgan.registry.client import open_registry
from cgan.reports.recorded_run import (
    ANY,
    FILES,
    SHA_TAG,
    RecordedRun,
    find_run,
    require_repeatable,
    yaml_of_then,
)
from cgan.stages.runner import last_line

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
INPUTS = {CSV: "CSV", TRAIN_DATA: "training part", HOLDOUT_DATA: "hold-out", JUDGE: "judge"}
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
    with _temporary_folder(keep) as folder:
        run = find_run(what, folder)
        require_repeatable(run)
        say(f"run {run.id} · {run.name}")
        then, now = run.tags.get("torch.version"), importlib.metadata.version("torch")
        if then != now:
            say(f"made with torch {then}, here is {now}: the bytes may differ")
        tree = folder / "tree"
        say(f"commit {run.commit[:10]}")
        git.clone_at(root, run.commit, tree)
        for name in FILES:
            if (run.source / name).is_file():
                shutil.copyfile(run.source / name, tree / name)
        _bring_csv(run, root, tree, say)
        for stage in STAGES:
            took = f" (took {run.training_s:.0f} s)" if stage == "train" and run.training_s else ""
            say(f"{stage}{took} …")
            _repeat_stage(tree, stage, run, say)
        outcome = _compare(run, tree, folder)
        if keep:
            say(f"kept: {tree}")
        _tag_run(run, outcome)
    return outcome


@contextlib.contextmanager
def _temporary_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cgan-reproduce-"))
    try:
        yield folder
    finally:
        for _ in range(0 if keep else 2):  # a stage's last child may still be writing there
            shutil.rmtree(folder, ignore_errors=True)


# --- the data ----------------------------------------------------------------------------------


def _bring_csv(run: RecordedRun, root: Path, tree: Path, say: Say) -> None:
    """The run's CSV, from wherever it still is, checked by its hashes."""
    md5, sha256 = run.tags.get("dvc.csv_md5"), run.tags.get("cgan.csv_sha256")
    if not md5 and not sha256:
        raise SourceError(f"run {run.id} does not say which CSV it was trained on.")
    target = tree / CSV
    target.parent.mkdir(parents=True, exist_ok=True)
    places: dict[str, Callable[[], object]] = {
        str(root / CSV): lambda: shutil.copyfile(root / CSV, target),
        "DVC's cache or remote": lambda: _from_dvc(root, tree, md5 or ""),
        "the data source": lambda: _from_source(run, root, tree, say),
    }
    looked = []
    for place, fetch in places.items():
        try:
            fetch()
        except (OSError, CganError) as error:
            looked.append(f"{place}: {error}")
            continue
        if (not md5 or md5_of(target) == md5) and (not sha256 or sha256_of(target) == sha256):
            say(f"data from {place}")
            return
        looked.append(f"{place}: other content")
    raise SourceError(
        f"the data of run {run.id} is nowhere: looked for a CSV with md5 {md5}, sha256 {sha256}.\n  "
        + "\n  ".join(looked)
        + f"\nBring the file back as {CSV}, or into DVC's cache with {DVC_PULL}."
    )


def _from_dvc(root: Path, tree: Path, md5: str) -> None:
    """By the cache and the remote of today, into a cache of the tree's own."""
    for name in ("config", "config.local"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(root / ".dvc" / name, tree / ".dvc" / name)
    with contextlib.suppress(FileNotFoundError):
        cached = root / _dvc(root, "cache", "dir") / "files/md5" / md5[:2] / md5[2:]
        shutil.copyfile(cached, tree / CSV)
        return
    if not _dvc(tree, "remote", "list"):
        raise SourceError("not in the cache, and no remote is configured")
    _dvc(tree, "config", "--local", "cache.dir", str(tree / ".dvc" / "cache"))
    _dvc(tree, "pull", "--quiet", str(CSV))


def _dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    env = _environment(folder, None)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise CganError((done.stderr or done.stdout).strip().splitlines()[-1][:300])
    return done.stdout.strip()


def _from_source(run: RecordedRun, root: Path, tree: Path, say: Say) -> None:
    """Where `params.yaml` of then took it from, without credentials."""
    data = yaml_of_then(tree / "params.yaml")["data"]
    if data["source"] == "sample":
        _repeat_stage(tree, "download", run, say)
    elif data["source"] == "file":
        file = find_file(root / data["path"])
        unpack(file, tree / CSV, data["member"], data["max_megabytes"])
    else:
        raise SourceError("Kaggle is not asked: put its train.csv into data/raw, if it is the same")


# --- the repeat ---------------------------------------------------------------------------------


def _environment(tree: Path, run: RecordedRun | None) -> dict[str, str]:
    """For a stage in `tree`: it writes nowhere else, on a machine set up like the run's where possible."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_OURS)}
    kept |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(tree),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    if run:
        kept |= {"CGAN_HOME": str(tree / ".cgan"), "DVC_ROOT": str(tree)}
        kept |= {"MLFLOW_TRACKING_URI": f"sqlite:///{tree / 'mlflow.db'}"}
        if run.tags.get("cgan.device") == "cpu":
            kept["CUDA_VISIBLE_DEVICES"] = ""  # `auto` shall mean what it meant there
        threads = run.tags.get("machine.omp_num_threads")
        if threads == "not set":
            kept.pop("OMP_NUM_THREADS", None)
        elif threads:
            kept["OMP_NUM_THREADS"] = threads
    return kept


def _repeat_stage(tree: Path, stage: str, run: RecordedRun, say: Say) -> None:
    """Run a stage's command as it stands in the tree's dvc.yaml, and pass on how far it says it is.

    Raises TrainingError if it fails.
    """
    stages = yaml_of_then(tree / "dvc.yaml").get("stages") or {}
    if stage not in stages:
        raise CganError(f"dvc.yaml at commit {run.commit[:10]} has no stage `{stage}`.")
    process = subprocess.Popen(
        shlex.split(stages[stage]["cmd"]),
        cwd=tree,
        env=_environment(tree, run),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    last: deque[str] = deque(maxlen=LAST_LINES)
    with process, last_line(say) as tell:
        try:
            for line in process.stdout or ():
                last.append(line)
                if line.endswith(" left\n"):
                    tell(f"  {line.strip()}")
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise TrainingError(
            f"stage `{stage}` ended with exit code {process.returncode} in the repeat, so there is nothing "
            f"to compare (`--keep` leaves its tree behind):\n{''.join(last).rstrip()}"
        )


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    for path, words in INPUTS.items():
        then, now = run.lock.get(str(path)), md5_of(tree / path)
        if then not in (None, now):
            differing.append(f"{words} ({path}): md5 {then} then, {now} now")
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
    if {key: t.shape for key, t in old.items()} != {key: t.shape for key, t in new.items()}:
        return "of another architecture"
    furthest = max((old[key].double() - new[key].double()).abs().max().item() for key in old)
    return f"at most {furthest:.2g} apart"


def _tag_run(run: RecordedRun, outcome: Comparison) -> None:
    """The outcome as a tag of the run; a store that went away meanwhile costs no more than that."""
    words = "the same bytes" if outcome.equal else outcome.text
    with contextlib.suppress(CganError), open_registry(ANY) as registry:
        text = f"{time.strftime('%Y-%m-%d %H:%M %Z')}: {words}"
        registry.client.set_tag(run.id, OUTCOME_TAG, text[:5000])
