"""Repeat a training that MLflow knows from its commit, params and data, and compare the bytes.

DVC runs everything up to the training in a clone in a temporary folder, with a Home, a cache and a store of
its own. Your tree and the store stay as they are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cgan import git
from cgan.errors import CganError, TrainingError
from cgan.files import read_json, sha256_of
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.runs.recorded_run import find_run_id
from cgan.pipeline.tracking.tags import (
    CHANGED_FILES_TAG,
    COMMIT_TAG,
    DATA_SHA256_TAG,
    GENERATOR_SHA256_TAG,
)
from cgan.project import DATA_SOURCE, GENERATOR, SOURCE_FOLDER, project_root

DROPPED_PREFIXES = ("MLFLOW_", "DVC_", "GIT_", "PREFECT_", "CGAN_")


def reproduce_run(what: str, say: Callable[[str], None]) -> bool:
    """Repeat the training of a run id, an alias (`champion`) or `models:/NAME@ALIAS`: are the bytes equal?

    Raises CganError for a run that cannot be repeated, and TrainingError when a stage fails.
    """
    run_id, root = find_run_id(what), project_root()
    with tempfile.TemporaryDirectory(prefix="cgan-reproduce-") as tmp, open_registry() as registry:
        tags, tree = registry.client.get_run(run_id).data.tags, Path(tmp) / "tree"
        if not {COMMIT_TAG, GENERATOR_SHA256_TAG} <= tags.keys():
            raise CganError(
                f"run {run_id} has no generator or no commit to repeat. Choose another."
            )
        if tags.get(CHANGED_FILES_TAG, "params.yaml") != "params.yaml":
            raise CganError(
                f"run {run_id} was made with changes that are not in commit {tags[COMMIT_TAG][:10]} "
                f"({tags[CHANGED_FILES_TAG]}), and only a commit can be repeated. MLflow has the changes "
                f"as the run's `{SOURCE_FOLDER.name}/patch.diff`: `git apply` that file, commit, and train "
                "again."
            )
        say(f"run {run_id} · commit {tags[COMMIT_TAG][:10]}")
        git.clone_at(root, tags[COMMIT_TAG], tree)
        params = registry.client.download_artifacts(
            run_id, f"{SOURCE_FOLDER.name}/params.yaml", tmp
        )
        shutil.copyfile(params, tree / "params.yaml")
        bring_data(root, tree)
        repeat(tree)
        if read_json(tree / DATA_SOURCE)["sha256"] != tags.get(DATA_SHA256_TAG):
            say("The data differ from those of the run.")
        then, now = tags[GENERATOR_SHA256_TAG], sha256_of(tree / GENERATOR)
    say(f"the same bytes: {now}" if now == then else f"NOT the same bytes: {then} then, {now} now")
    return now == then


def bring_data(root: Path, tree: Path) -> None:
    """Copy a CSV or folder of the project's that is not in the commit."""
    data = load_params(tree / "params.yaml").data
    if data.source == "file" and not Path(data.path).is_absolute():
        if (root / data.path).is_dir():
            shutil.copytree(root / data.path, tree / data.path, dirs_exist_ok=True)
        else:
            shutil.copyfile(root / data.path, tree / data.path)


def repeat(tree: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(DROPPED_PREFIXES)}
    env |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    env |= {"PYTHONPATH": str(tree), "MLFLOW_TRACKING_URI": f"sqlite:///{tree / 'mlflow.db'}"}
    command = [sys.executable, "-m", "dvc", "repro", "--force", "train"]
    if code := subprocess.run(command, cwd=tree, env=env).returncode:
        raise TrainingError(f"`dvc repro` ended with exit code {code}, for the reason above.")
