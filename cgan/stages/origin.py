"""What a training is made from: code, machine, and who asked for it, as its MLflow run tells it."""

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cgan import git
from cgan.files import write_bytes
from cgan.params.presets import recipe_in_words
from cgan.params.sections import TrainChoices
from cgan.pipeline.tracking.store import requester_tags
from cgan.project import SOURCE
from cgan.stages.runner import log

PATCH = "patch.diff"  # in SOURCE, the uncommitted changes


def source_of_here() -> git.Source | None:
    """None where there is no repository; None and a warning where there is one that git does not read."""
    try:
        return git.source()
    except git.GitError as error:
        here = Path.cwd()
        if any((folder / ".git").exists() for folder in (here, *here.parents)):
            log.warning("The run is kept without its commit and changes, as git says: %s", error)
    return None


def run_name(params: TrainChoices) -> str:
    """`seed 1 · lr 0.001 · default · 26 Nov 17:30`: what tells it from others stands in front, for tables cut
    names short; the data have a column."""
    parts = [f"seed {params.seed}", recipe_in_words(params)]
    now = time.strftime("%d %b %H:%M")
    return " · ".join([*filter(None, [*parts, os.environ.get("DVC_EXP_NAME")]), now])


def origin(dataset: Mapping[str, Any], source: git.Source | None) -> dict[str, str]:
    """Data, commit, a DVC experiment or a flow that asked for it."""
    facts = {"data": str(dataset["name"])}
    if source:
        facts |= {"commit": source.commit, "dirty": str(bool(source.changed)).lower()}
    return facts | {k: v for k, v in _context().items() if k != "mlflow.user"}


def facts_of_here(dataset: Mapping[str, Any], source: git.Source | None) -> dict[str, str]:
    """User, git, DVC, Prefect, torch, machine and CSV, as tags. What is unknown is left out."""
    kind, _, name = str(dataset["name"]).partition(": ")
    tags = {
        "mlflow.source.name": "cgan.stages.train",
        "torch.version": str(torch.__version__),  # unlike the metadata's, with its build: +cu132
        "machine.cpu": _cpu(),
        "machine.cores": str(os.cpu_count()),
        "cgan.csv_sha256": str(dataset["sha256"]),
        "data": "MNIST sample" if kind == "sample" else Path(name).stem,
    }
    if source:
        tags |= {
            "mlflow.source.git.commit": source.commit,
            "mlflow.source.git.branch": source.branch,
            "git.dirty": str(bool(source.changed)).lower(),
            "git.changed_files": ", ".join(source.changed)[:1000],
        }
    return {key: value for key, value in tags.items() if value} | _context()


def _context() -> dict[str, str]:
    """The DVC experiment and the flow that asked for the training."""
    context = {"dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""), **requester_tags()}
    return {key: value for key, value in context.items() if value}


def _cpu() -> str:
    """The processor's model name: different models round differently."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_source(source: git.Source | None) -> None:
    """Write to SOURCE the project's files that the commit may not have, and the changes after it; not where
    they hold the value of a secret."""
    files = {name: Path(name) for name in ("params.yaml", "dvc.yaml", "dvc.lock")}
    contents = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    if source and source.patch:
        contents[PATCH] = source.patch
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    for name, content in contents.items():
        if secrets := git.secrets_in(content):
            words = "%s is not kept with the run, as it contains the value of %s."
            log.warning(words, name, secrets)
        else:
            write_bytes(SOURCE / name, content)
