"""Repeat a training that MLflow knows from its commit, params and data, and compare the bytes.

This happens in a worktree in a temporary folder, with a store, checkpoints and outputs of its own. Your
tree, DVC's cache and the registry stay as they are; the run gets the tag `cgan.reproduced`. The stages
run for real; nothing is restored from a cache.
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
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    SCHEDULED_WORK,
    TRAIN_DATA,
    project_root,
)
from cgan.registry.client import open_registry
from cgan.runs.recorded_run import (
    ANY,
    FILES,
    SHA_TAG,
    RecordedRun,
    find_run,
    require_repeatable,
    yaml_of_then,
)
from cgan.stages.runner import last_line
from cgan.tracking.records import MAX_PARAM

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
LOOK_EVERY_S = 1.0  # into what a stage says


@dataclass(frozen=True)
class Comparison:
    equal: bool
    text: str


def reproduce_run(what: str, say: Say, *, keep: bool = False) -> Comparison:
    """Repeat the training of a run id, an alias (`champion`) or `models:/NAME@ALIAS`, and compare.

    Raises CganError when it cannot be repeated: no such run, its commit, patch or data is nowhere, a
    stage fails. `keep` leaves the worktree behind.
    """
    root = project_root()
    with _stoppable(), tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        run = find_run(what, Path(temporary))
        require_repeatable(run)
        repository = _repository_with(root, run.commit)
        say(f"run {run.id} · {run.name}")
        then, now = run.tags.get("torch.version"), importlib.metadata.version("torch")
        if then != now:
            say(f"made with torch {then}, here is {now}: the bytes may differ")
        with git.worktree(repository, run.commit, keep=keep) as tree:
            _restore(run, tree, say)
            _bring_csv(run, root, tree, say)
            _require_params(run, tree)
            for stage in STAGES:
                told = (
                    f" (took {run.training_s:.0f} s)" if stage == "train" and run.training_s else ""
                )
                say(f"{stage}{told} …")
                _repeat_stage(tree, stage, run, say)
            outcome = _compare(run, tree, Path(temporary))
            if keep:
                say(f"kept: {tree}")
        _tag_run(run, outcome)
    return outcome


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block as SystemExit; a second one doesn't stop the tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    both = (signal.SIGTERM, signal.SIGINT)

    def leave(number: int, _frame: Any) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in both}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the tree -----------------------------------------------------------------------------------


def _repository_with(root: Path, commit: str) -> Path:
    """Where the commit is: the project, or the clone in which scheduled runs work."""
    places = [root, root / SCHEDULED_WORK]
    for place in places:
        if (place / ".git").exists() and git.has_commit(place, commit):
            return place
    looked = " and ".join(str(place) for place in places if (place / ".git").exists())
    raise CganError(
        f"commit {commit} is gone: looked in {looked or f'{root}, which is no git repository'}. "
        "`git fetch --all` brings it if another clone has it; a shallow clone needs `git fetch "
        "--unshallow`."
    )


def _restore(run: RecordedRun, tree: Path, say: Say) -> None:
    say(f"commit {run.commit[:10]}")
    for name in FILES:
        if (run.source / name).is_file():
            shutil.copyfile(run.source / name, tree / name)


def _require_params(run: RecordedRun, tree: Path) -> None:
    """The params that MLflow shows must be those of params.yaml."""
    document = yaml_of_then(tree / "params.yaml")
    sections = ("data", "validate", "preprocess", "train_judge", "train")
    differing = [
        f"`{section}.{key}` is {value}, MLflow says {run.params[f'{section}.{key}']}"
        for section in sections
        for key, value in document.get(section, {}).items()
        if value != "auto"  # what that became, the data say
        and not _is_same_value(value, run.params.get(f"{section}.{key}"))
    ]
    if differing:
        raise CganError(
            f"run {run.id}: params.yaml as recorded is not what the run logged: "
            f"{'; '.join(differing)}. The store was changed after the run."
        )


def _is_same_value(value: Any, logged: str | None) -> bool:
    if logged is None or logged == str(value)[:MAX_PARAM]:
        return True
    with contextlib.suppress(TypeError, ValueError):
        return float(value) == float(logged)  # 1 in the file was logged as 1.0
    return False


def _bring_csv(run: RecordedRun, root: Path, tree: Path, say: Say) -> None:
    """The run's CSV, from wherever it still is, checked by its hashes."""
    md5 = run.tags.get("dvc.csv_md5")
    sha256 = run.tags.get("cgan.csv_sha256")
    if not md5 and not sha256:
        raise SourceError(f"run {run.id} does not say which CSV it was trained on.")
    target = tree / CSV
    target.parent.mkdir(parents=True, exist_ok=True)
    looked = []

    def is_it() -> bool:
        return (
            target.is_file()
            and (not md5 or md5_of(target) == md5)
            and (not sha256 or sha256_of(target) == sha256)
        )

    for place in _places_of(root, md5):
        if not place.is_file():
            looked.append(f"{place}: not there")
            continue
        shutil.copyfile(place, target)
        if is_it():
            say(f"data from {place}")
            return
        looked.append(f"{place}: other content")
    for name, fetch in (("the data source", _from_source), ("DVC's remote", _from_remote)):
        try:
            how = fetch(run, root, tree, say)
        except CganError as error:
            how = ""
            looked.append(f"{name}: {error}")
        if how and is_it():
            say(f"data from {how}")
            return
        if how:
            looked.append(f"{how}: other content than then")
    raise SourceError(
        f"the data of run {run.id} is nowhere: looked for a CSV with md5 {md5}, sha256 {sha256}.\n  "
        + "\n  ".join(looked)
        + f"\nBring the file back as {CSV}, or into DVC's cache with {DVC_PULL}."
    )


def _places_of(root: Path, md5: str | None) -> list[Path]:
    work = root / SCHEDULED_WORK
    places = [folder / CSV for folder in (root, work) if folder.is_dir()]
    if md5:
        places.append(_dvc_cache(root) / "files" / "md5" / md5[:2] / md5[2:])
    return places


def _dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=_environment(folder, None),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise CganError((done.stderr or done.stdout).strip().splitlines()[-1][:300])
    return done.stdout.strip()


def _dvc_cache(root: Path) -> Path:
    with contextlib.suppress(CganError):
        return root / _dvc(root, "cache", "dir")
    return root / ".dvc" / "cache"


def _from_source(run: RecordedRun, root: Path, tree: Path, say: Say) -> str:
    """Where `params.yaml` of then took it from, without credentials; how it came, or nothing."""
    data = yaml_of_then(tree / "params.yaml")["data"]
    if data["source"] == "sample":
        _repeat_stage(tree, "download", run, say)
        return "the embedded sample"
    if data["source"] == "file":
        file = find_file(root / data["path"])
        unpack(file, tree / CSV, data["member"], data["max_megabytes"])
        return str(file)
    raise SourceError("Kaggle is not asked: put its train.csv into data/raw, if it is the same")


def _from_remote(run: RecordedRun, root: Path, tree: Path, _: Say) -> str:
    for name in ("config", "config.local"):  # the remote's address and credentials of today
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(root / ".dvc" / name, tree / ".dvc" / name)
    if not _dvc(tree, "remote", "list"):
        raise SourceError("none is configured")
    _dvc(tree, "config", "--local", "cache.dir", str(tree / ".dvc" / "cache"))
    _dvc(tree, "pull", "--quiet", str(CSV))
    return "DVC's remote"


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
        kept |= {"DVC_ROOT": str(tree), "MLFLOW_TRACKING_URI": f"sqlite:///{tree / 'mlflow.db'}"}
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
    output = tree / ".cgan" / f"{stage}.log"
    output.parent.mkdir(exist_ok=True)
    with output.open("wb") as log:
        process = subprocess.Popen(
            shlex.split(stages[stage]["cmd"]),
            cwd=tree,
            env=_environment(tree, run),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with output.open(encoding="utf-8", errors="replace") as said, last_line(say) as tell:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(LOOK_EVERY_S)
                    if far := [line for line in said.readlines() if line.endswith(" left\n")]:
                        tell(f"  {far[-1].strip()}")
            code = process.returncode
        except BaseException:
            _end(process)
            raise
    if code:
        last = output.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        raise TrainingError(
            f"stage `{stage}` ended with exit code {code} in the repeat, so there is nothing to "
            "compare (`--keep` leaves its tree behind):\n" + "\n".join(last)
        )


def _end(process: subprocess.Popen[bytes]) -> None:
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
    unknown = [words for tag, words in MACHINE.items() if tag not in run.tags or tag not in here]
    for path, words in INPUTS.items():
        if str(path) not in run.lock:
            unknown.append(words)
        elif (now := md5_of(tree / path)) != run.lock[str(path)]:
            differing.append(f"{words} ({path}): md5 {run.lock[str(path)]} then, {now} now")
    lines = [
        "NOT the same bytes.",
        f"  then  {expected}",
        f"  now   {found}",
        *([f"  weights: {words}"] if (words := _distance(run, tree, folder)) else []),
        "What differs:" if differing else "Nothing that is known to matter differs.",
        *(f"  {line}" for line in differing),
    ]
    if unknown:
        lines.append(f"Not recorded, so not compared: {', '.join(unknown)}.")
    if not differing and not unknown:
        lines.append("So the code itself does not give the same twice, or files changed under it.")
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
