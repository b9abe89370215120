"""What MLflow remembers of a training: its tags, its params and the files that it was made from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cgan.errors import CganError, ParamsError
from cgan.params.reading import parse_yaml
from cgan.registry.client import Registry, model_name, open_registry
from cgan.run.lifecycle import SOURCE

COMMIT_TAG = "mlflow.source.git.commit"
SHA_TAG = "cgan.generator_sha256"
ANY = "cgan"  # for questions about runs, which no registered model is part of


@dataclass(frozen=True)
class RecordedRun:
    """What MLflow remembers of a training. `source`: its recorded files, where it has any."""

    id: str
    name: str
    tags: dict[str, str]
    training_s: float | None
    source: Path
    lock: dict[str, str]  # path → md5, of the run's dvc.lock

    @property
    def commit(self) -> str:
        return self.tags[COMMIT_TAG]


def find_run(what: str, folder: Path) -> RecordedRun:
    from mlflow.exceptions import MlflowException

    run_id = find_run_id(what)
    with open_registry(ANY) as registry:
        client = registry.client
        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise CganError(
                f"the MLflow store {registry.shown} has no run {run_id}. Set MLFLOW_TRACKING_URI if the "
                "store is another."
            ) from None
        if client.list_artifacts(run_id, SOURCE):
            client.download_artifacts(run_id, SOURCE, str(folder))
    source = folder / SOURCE
    return RecordedRun(
        id=run_id,
        name=str(found.info.run_name),
        tags=dict(found.data.tags),
        training_s=found.data.metrics.get("time/training_s"),
        source=source,
        lock=hashes_in(source / "dvc.lock"),
    )


def find_run_id(what: str) -> str:
    """The run of an id, of an alias, of `models:/NAME@ALIAS`, or the one with this name. Raises CganError."""
    if match := re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?", what):
        return match[1]
    version = re.fullmatch(r"models:/([^@/]+)(?:@([^@/]+)|/(\d+))", what)
    with open_registry(version[1] if version else model_name()) as registry:
        alias = version[2] or version[3] if version else what
        number = int(alias) if version and version[3] else registry.aliases().get(alias)
        if number is not None:
            return registry.version(number).run_id
        ids = _called(registry, what)
    if len(ids) > 1:
        raise CganError(
            f"several runs are called {what!r}: {', '.join(ids)}. Give one of these ids."
        )
    if not ids:
        raise CganError(
            f"{what!r} names no run: expected a run id (32 hexadecimal digits, on its page in MLflow and "
            "in models/mlflow_run.json), its name, an alias such as `champion`, or `models:/NAME@ALIAS` "
            "(`cgan registry list` shows what there is)."
        )
    return ids[0]


def _called(registry: Registry, name: str) -> list[str]:
    """The ids of the runs with this name, the first 10."""
    quote = '"' if "'" in name else "'"  # MLflow has no escapes
    if quote in name:
        return []
    experiments = [found.experiment_id for found in registry.client.search_experiments()]
    wanted = f"attributes.run_name = {quote}{name}{quote}"
    runs = registry.client.search_runs(experiments, wanted, max_results=10)
    return [run.info.run_id for run in runs]


def require_repeatable(run: RecordedRun) -> None:
    if SHA_TAG not in run.tags:
        raise CganError(
            f"run {run.id} ({run.name}) made no generator: there is nothing to compare with. Choose a "
            "run that has the tag `cgan.generator_sha256`."
        )
    if COMMIT_TAG not in run.tags:
        raise CganError(
            f"run {run.id} was made outside of git: nobody knows with which code. Train in a git "
            "repository, and the next run can be repeated."
        )
    if run.tags.get("git.changed_files", "params.yaml") != "params.yaml":
        raise CganError(
            f"run {run.id} was made from a tree with uncommitted changes after commit {run.commit[:10]} "
            f"({run.tags['git.changed_files']}), and only a commit can be repeated. They are in MLflow, "
            "as `source/patch.diff` of the run: `git apply` them, commit, and train again."
        )


def hashes_in(lock: Path) -> dict[str, str]:
    """path → md5 of what the stages before train made, by a dvc.lock; nothing where there is none."""
    if not lock.is_file():
        return {}
    try:
        stages = parse_yaml(lock.read_text(encoding="utf-8"), lock.name)["stages"]
        made = [stages.get(name, {}) for name in ("preprocess", "train_judge")]
        outs = [out for stage in made for out in stage.get("outs") or ()]
        return {out["path"]: out["md5"] for out in outs if "md5" in out}
    except (OSError, ParamsError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CganError(f"{lock.name} of the run cannot be read: {reason}") from None
