"""The MLflow run of a stage: how it is opened, reopened and ended.

A training writes its records to the run's folder (`cgan.run.records`) and never talks to a server. A
child process, the follower (`cgan.run.follower`), sends them. What it cannot deliver waits for `cgan
track flush`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgan import git
from cgan.errors import CganError, Interrupted, TrackingError
from cgan.files import locked, md5_of, read_json, write_json
from cgan.params.editing import recipe_in_words
from cgan.params.sections import Params, TrainParams, flatten
from cgan.project import LOCK, RUN_REFERENCE, TRAIN_AGAIN, project_root
from cgan.run.follower import Follower, flush_one, store_of
from cgan.run.records import LOCK as SENDING
from cgan.run.records import RESULT, Run, RunInfo, folder_of, tidy
from cgan.store.address import experiment_name, store_uri, without_credentials

log = logging.getLogger(__name__)

FINISH_S = 20.0
FINISH_AFTER_SIGNAL_S = 5.0
PATCH_LIMIT = 10_000_000  # bytes
SOURCE, PATCH = "source", "patch.diff"  # where a run keeps what it was made from


@contextlib.contextmanager
def training_run(
    params: Params,
    fitted: TrainParams,
    folder: Path,
    *,
    tags: Mapping[str, str],
    dataset: Mapping[str, Any],
    early: Follower | None = None,
) -> Iterator[Run]:
    """The run of a training: its records are open and its follower runs until the training ends.

    `fitted`: `params.train` with a number for each `auto`. `folder` is named by the training's fingerprint;
    a run that is there already goes on. `tags`: facts the caller knows (device, data hash). `dataset`:
    `name`, `path`, `sha256`, `rows` and other facts about the data. `early`: what `start_follower`
    returned. RUN_REFERENCE is written when the training succeeds; by it `reopen` finds the run again.
    Status: FINISHED, FAILED on an exception, KILLED on SIGTERM or Ctrl-C. Raises TrackingError when the
    store is unusable by configuration, or away and `tracking.on_unreachable` is `fail`.
    """
    uri = store_uri(project_root())
    try:
        source = git.source()
    except git.GitError:  # no repository, or none that has a commit
        source = None
    info = RunInfo(
        run_key=uuid.uuid4().hex,
        run_name=_run_name(params, data_name(dataset)),
        experiment=experiment_name(params.tracking.experiment),
        tracking_uri=without_credentials(uri),
        origin=_origin(dataset, source),
    )
    if (folder / RESULT).is_file() and not _is_wanted(folder, info.origin):
        with locked(folder / SENDING):  # else a follower at work would go on in the new folder
            folder.rename(folder.with_name(f"{folder.name}-{RunInfo.load(folder).run_key[:8]}"))
    tidy(folder)
    run = Run(folder, info, resume=True)
    run.write("start", pid=os.getpid())
    resumed = {"cgan.resumed": "true"} if run.resumed else {}
    run.set_tags({**_facts_of_here(source, dataset), **tags, **resumed})
    _log_source(run, source)
    # These are read after the training: they may change before it is resumed, and MLflow refuses that.
    later = {"gate", "sweep", "tracking"}
    as_run = params.model_dump(by_alias=True, exclude=later)
    as_run["train"] = fitted.model_dump()
    run.log_params(flatten(as_run))
    run.write("dataset", facts=dict(dataset))
    follower = early or Follower(uri)
    try:
        if params.tracking.on_unreachable == "fail":
            _require_store(folder)
        follower.follow(folder, system_metrics=params.tracking.system_metrics)
        yield run
    except BaseException as error:
        killed = isinstance(error, Interrupted | KeyboardInterrupt)
        status = "KILLED" if killed else "FAILED"
        run.write("end", status=status, reason=f"{type(error).__name__}: {error}"[:1000])
        run.close()
        follower.finish(folder, FINISH_AFTER_SIGNAL_S if killed else FINISH_S)
        raise
    run.write("end", status="FINISHED")
    run.close()
    sent = follower.finish(folder, FINISH_S)
    write_json(RUN_REFERENCE, asdict(run.info) | run.result | sent)
    shutil.copyfile(RUN_REFERENCE, folder / RESULT)


def _require_store(folder: Path) -> None:
    """Raises TrackingError unless MLflow takes what is recorded so far."""
    try:
        flush_one(project_root(), folder)
    except TrackingError as error:
        advice = "To train now and deliver later, set `tracking.on_unreachable: spool`."
        raise TrackingError(f"{error} {advice}") from None


def _is_wanted(folder: Path, origin: Mapping[str, str]) -> bool:
    """Is the finished training in this folder the one that is asked for now?

    DVC learns of a result after the stage has ended. If anything is killed before that, DVC starts the
    stage again, and the training is taken up at its last step. One that DVC knows is trained anew on
    purpose; and one for a sweep's trial or a DVC experiment has a run of its own, whoever trained the same
    before.
    """
    with contextlib.suppress(OSError):
        if md5_of(folder / RESULT) in LOCK.read_text(encoding="utf-8"):
            return False
    return _asked_by(RunInfo.load(folder).origin) == _asked_by(origin)


def _asked_by(origin: Mapping[str, str]) -> dict[str, str]:
    here = ("data", "commit", "dirty")
    return {k: v for k, v in origin.items() if k not in here and not k.startswith("prefect.")}


@contextlib.contextmanager
def reopen() -> Iterator[Run]:
    """The run that RUN_REFERENCE names, to add to it; its status stays."""
    try:
        info = RunInfo.read(read_json(RUN_REFERENCE))
    except (KeyError, TypeError, ValueError):
        raise TrackingError(
            f"{RUN_REFERENCE}: names no MLflow run. Restore it (`dvc checkout`), or train: {TRAIN_AGAIN}."
        ) from None
    run = Run(folder_of(info.run_key), info, resume=False)
    follower = Follower(store_of(info, project_root()))
    follower.follow(run.folder)
    try:
        yield run
    finally:
        run.write("added")
        run.close()
        follower.finish(run.folder, FINISH_S)
        shutil.copyfile(RUN_REFERENCE, run.folder / RESULT)  # elsewhere it is not the training's


def made_for(tags: Mapping[str, str], reference: Path) -> bool:
    """Was the training in `reference` made with these tags? One that DVC's cache brought was made for
    something else, and its run is another's."""
    with contextlib.suppress(CganError):
        return tags.items() <= dict(read_json(reference).get("origin") or {}).items()
    return not tags


def data_name(dataset: Mapping[str, Any]) -> str:
    """`MNIST sample` for the embedded digits, else the name of the file or of Kaggle's data set."""
    source, _, name = str(dataset["name"]).partition(": ")
    return "MNIST sample" if source == "sample" else Path(name).stem


def _run_name(params: Params, data: str) -> str:
    """`lr 0.001 · default · MNIST sample · seed 1 · 26 Nov 17:30`: what tells it from others stands in
    front, for tables cut names short."""
    parts = [
        recipe_in_words(params.train),
        data,
        f"seed {params.train.seed}",
        os.environ.get("DVC_EXP_NAME"),
    ]
    return " · ".join([*filter(None, parts), time.strftime("%d %b %H:%M")])


def _facts_of_here(source: git.Source | None, dataset: Mapping[str, Any]) -> dict[str, str]:
    """User, git, DVC, Prefect, torch, machine and CSV, as tags. What is unknown is left out."""
    import torch  # a training has it loaded; who reopens a run is spared it

    tags = {
        "mlflow.source.name": "cgan.stages.train",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "torch.version": str(torch.__version__),  # unlike the metadata's, with its build: +cu132
        "python.version": platform.python_version(),
        "machine.cpu": _cpu(),
        "machine.cores": str(os.cpu_count()),
        "machine.omp_num_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "cgan.csv_sha256": str(dataset["sha256"]),
        "data": data_name(dataset),
    }
    with contextlib.suppress(OSError):  # by which DVC's cache keeps it
        tags["dvc.csv_md5"] = md5_of(str(dataset["path"]))
    if source:
        tags |= {
            "mlflow.source.git.commit": source.commit,
            "mlflow.source.git.branch": source.branch,
            "git.dirty": str(bool(source.changed)).lower(),
            "git.changed_files": ", ".join(source.changed)[:1000],
        }
    return {key: value for key, value in (tags | run_context()).items() if value}


def user() -> str:
    """Who runs this; empty for a user that the container's passwd does not know."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


def run_context() -> dict[str, str]:
    """MLFLOW_RUN_CONTEXT, in which the flow names itself (`prefect.flow_run_id` and others)."""
    context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    return {str(key): str(value) for key, value in context.items()}


def _cpu() -> str:
    """The processor's model name: different models round differently."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _origin(dataset: Mapping[str, Any], source: git.Source | None) -> dict[str, str]:
    """What a training was made from: data, commit, a DVC experiment or a flow that asked for it."""
    made = {"data": str(dataset["name"]), "dvc.exp_name": os.environ.get("DVC_EXP_NAME", "")}
    if source:
        made |= {"commit": source.commit, "dirty": str(bool(source.changed)).lower()}
    return {key: value for key, value in (made | run_context()).items() if value}


def _log_source(run: Run, source: git.Source | None) -> None:
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        if Path(name).is_file():
            run.log_file(Path(name), SOURCE)
    if not source or not source.patch:
        return
    why = "too large" if len(source.patch) > PATCH_LIMIT else ""
    if source.secrets:
        why = f"the value of {source.secrets} stands in them"
    if why:
        log.warning(
            "The changes since commit %.10s are not kept with the run: %s.", source.commit, why
        )
    else:
        run.log_bytes(PATCH, source.patch, SOURCE)
