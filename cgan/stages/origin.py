"""What a training is made from, and who asked for it, as its MLflow run tells it."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cgan.base import git
from cgan.base.commands import CommandError
from cgan.base.files import write_bytes
from cgan.params.sections import AutoTrainParams
from cgan.pipeline.project import SOURCE_FOLDER
from cgan.pipeline.tracking import store
from cgan.stages.runner import log

PATCH = "patch.diff"  # in SOURCE_FOLDER, the uncommitted changes


def project_tree() -> git.WorkingTree | None:
    """The project as git sees it; None and a line in the log where git cannot read it."""
    try:
        return git.working_tree()
    except CommandError as error:
        log.info("The run is kept without its commit and changes, as git says: %s", error)
    return None


def run_name(params: AutoTrainParams) -> str:
    """`seed 1 · 26 Nov 17:30`, with the name of DVC's experiment."""
    parts = [f"seed {params.seed}", os.environ.get("DVC_EXP_NAME")]
    return " · ".join([*filter(None, parts), time.strftime("%d %b %H:%M")])


def origin_tags(dataset: Mapping[str, Any], tree: git.WorkingTree | None) -> dict[str, str]:
    """Data, commit, torch, and the DVC experiment, the user and the flow that asked for the training."""
    source, _, name = str(dataset["name"]).partition(": ")
    tags = {
        store.SOURCE_TAG: "cgan.stages.train",
        "torch.version": str(torch.__version__),  # unlike the metadata's, with its build: +cu132
        store.DATA_TAG: "MNIST sample" if source == "sample" else Path(name).stem,
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
    }
    if tree:
        tags |= {store.COMMIT_TAG: tree.commit, store.DIRTY_TAG: str(bool(tree.changed)).lower()}
    return {key: value for key, value in tags.items() if value} | store.requester_tags()


def keep_source(tree: git.WorkingTree | None) -> None:
    """Write to SOURCE_FOLDER the project's files that the commit may not have, and the changes after it; not
    where they hold the value of a secret."""
    names = [name for name in ("params.yaml", "dvc.yaml", "dvc.lock") if Path(name).is_file()]
    contents = {name: Path(name).read_bytes() for name in names}
    if tree and tree.patch:
        contents[PATCH] = tree.patch
    shutil.rmtree(SOURCE_FOLDER, ignore_errors=True)
    SOURCE_FOLDER.mkdir(parents=True)
    for name, content in contents.items():
        if secrets := git.secrets_in(content):
            words = "%s is not kept with the run, as it contains the value of %s."
            log.warning(words, name, secrets)
        else:
            write_bytes(SOURCE_FOLDER / name, content)
