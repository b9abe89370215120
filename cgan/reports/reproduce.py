"""Repeat a training that MLflow knows from its commit, params and data, and compare the bytes.

DVC runs the stages of then in a clone in a temporary folder, with a Home, a store and outputs of its own, and
restores nothing. Your tree and the registry stay as they are; DVC's cache gets no more than what `dvc pull`
brings, and the run the tag `cgan.reproduced`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cgan import git
from cgan.errors import CganError, SourceError, TrainingError
from cgan.files import read_json, sha256_of
from cgan.model.file_facts import read_facts
from cgan.project import CSV, DVC_PULL, GENERATOR, PICTURES, RUN_REFERENCE, project_root
from cgan.registry.client import open_registry
from cgan.reports.recorded_run import find_run_id
from cgan.run.lifecycle import SOURCE

if TYPE_CHECKING:
    from mlflow.entities import Run

Say = Callable[[str], None]
STAGES = ("validate", "preprocess", "train_judge", "train")
COMMIT_TAG, SHA_TAG = "mlflow.source.git.commit", "cgan.generator_sha256"
OUTCOME_TAG = "cgan.reproduced"
MACHINE = (  # tags of what can round otherwise
    "torch.version",
    "cgan.device",
    "cgan.precision",
    "machine.cpu",
    "machine.cores",
    "machine.omp_num_threads",
    "python.version",
)
NOT_OURS = ("MLFLOW_", "DVC_", "GIT_", "PREFECT_", "CGAN_")


def reproduce_run(what: str, say: Say, *, keep: bool = False) -> bool:
    """Repeat the training of a run id, an alias (`champion`) or `models:/NAME@ALIAS`: are the bytes equal?

    Raises CganError when it cannot be repeated: no such run, its commit or data is nowhere, a stage fails.
    `keep` leaves the clone behind.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # end in the normal way, and tidy up
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    run_id = find_run_id(what)
    with contextlib.ExitStack() as at_the_end:
        folder = Path(tempfile.mkdtemp(prefix="cgan-reproduce-"))
        if not keep:
            at_the_end.callback(shutil.rmtree, folder, ignore_errors=True)
        tree = folder / "tree"
        with open_registry() as registry:
            run = registry.client.get_run(run_id)
            _require_repeatable(run)
            say(f"run {run_id} · {run.info.run_name} · commit {run.data.tags[COMMIT_TAG][:10]}")
            if registry.client.list_artifacts(run_id, SOURCE):
                registry.client.download_artifacts(run_id, SOURCE, str(folder))
        git.clone_at(project_root(), run.data.tags[COMMIT_TAG], tree)
        for name in ("params.yaml", "dvc.lock"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(folder / SOURCE / name, tree / name)
        _bring_csv(run, tree, say)
        _repeat(run, tree, *STAGES)
        equal, words = _compare(run, tree)
        say(words + (f"\nkept: {tree}" if keep else ""))
        with contextlib.suppress(CganError), open_registry() as registry:
            text = f"{time.strftime('%Y-%m-%d %H:%M %Z')}: {words}"
            registry.client.set_tag(run_id, OUTCOME_TAG, text[:5000])
    return equal


def _require_repeatable(run: Run) -> None:
    run_id, tags = run.info.run_id, run.data.tags
    if SHA_TAG not in tags or COMMIT_TAG not in tags:
        raise CganError(
            f"run {run_id} ({run.info.run_name}) made no generator, or outside of git. Choose a run with the "
            f"tags `{SHA_TAG}` and `{COMMIT_TAG}`."
        )
    if tags.get("git.changed_files", "params.yaml") != "params.yaml":
        raise CganError(
            f"run {run_id} was made with uncommitted changes after {tags[COMMIT_TAG][:10]} "
            f"({tags['git.changed_files']}), and only a commit can be repeated. MLflow has them, as "
            "`source/patch.diff` of the run: `git apply` that, commit, and train again."
        )


def _bring_csv(run: Run, tree: Path, say: Say) -> None:
    """The run's CSV, from wherever it still is, checked by its hash."""
    sha256, root = run.data.tags.get("cgan.csv_sha256"), project_root()
    here = CSV.parent
    places: dict[str, Callable[[], object]] = {
        str(root / CSV): lambda: shutil.copytree(root / here, tree / here, dirs_exist_ok=True),
        "DVC's cache or remote": lambda: _pull(run, tree),
        "the data source": lambda: _repeat(run, tree, "download"),
    }
    looked = []
    for place, bring in places.items():
        try:
            bring()
            pictures = tree / PICTURES
            facts = read_facts(pictures, "pictures") if pictures.is_file() else None
            if (facts["digest"] if facts else sha256_of(tree / CSV)) == sha256:
                say(f"data from {place}")
                return
            looked.append(f"{place}: other content")
        except (OSError, subprocess.SubprocessError, CganError) as error:
            looked.append(f"{place}: {error}")
    raise SourceError(
        f"the data of run {run.info.run_id} is nowhere: looked for a CSV with sha256 {sha256}.\n  "
        + "\n  ".join(looked)
        + f"\nBring the file back as {CSV}, or into DVC's cache with {DVC_PULL}."
    )


def _pull(run: Run, tree: Path) -> None:
    """By the run's dvc.lock, with the cache and the remote that the project has today."""
    root = project_root()
    for name in (".dvc/config", ".dvc/config.local"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(root / name, tree / name)
    cache = subprocess.check_output([sys.executable, "-m", "dvc", "cache", "dir"], cwd=root)
    _dvc(run, tree, "cache", "dir", "--local", cache.decode().strip())
    _dvc(run, tree, "pull", "--force", "download")


def _repeat(run: Run, tree: Path, *stages: str) -> None:
    _dvc(run, tree, "repro", "--force", "--no-commit", "--single-item", *stages)


def _dvc(run: Run, tree: Path, *arguments: str) -> None:
    """Run DVC in the clone, its stages on a machine set up like the run's where possible."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(NOT_OURS)}
    env |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(tree),
        "DVC_SITE_CACHE_DIR": str(tree.parent / "dvc"),
        "CGAN_HOME": str(tree / ".cgan"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tree / 'mlflow.db'}",
    }
    if run.data.tags.get("cgan.device") == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""  # `auto` shall mean what it meant there
    threads = run.data.tags.get("machine.omp_num_threads", "not set")
    env.pop("OMP_NUM_THREADS", None)
    if threads != "not set":
        env["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.Popen(command, cwd=tree, env=env, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # of the clone nothing is needed any more
        process.wait()
        raise
    if code:
        raise TrainingError(
            f"`dvc {' '.join(arguments)}` ended with exit code {code}, for the reason above. "
            "`--keep` leaves the clone behind."
        )


def _compare(run: Run, tree: Path) -> tuple[bool, str]:
    found, expected = sha256_of(tree / GENERATOR), run.data.tags[SHA_TAG]
    if found == expected:
        return True, f"the same bytes: {found}"
    lines = ["NOT the same bytes.", f"  then  {expected}", f"  now   {found}"]
    from mlflow import MlflowClient

    with contextlib.suppress(Exception):  # it only explains: the comparison stands without it
        repeated = MlflowClient(f"sqlite:///{tree / 'mlflow.db'}")
        now = repeated.get_run(read_json(tree / RUN_REFERENCE)["run_id"]).data.tags
        then = run.data.tags
        differ = [tag for tag in MACHINE if tag in then and tag in now and then[tag] != now[tag]]
        lines += [f"  {tag}: {then[tag]} then, {now[tag]} now" for tag in differ]
        lines += [] if differ else ["  Torch and machine are the same."]
    return False, "\n".join(lines)
