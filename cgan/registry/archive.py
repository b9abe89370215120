"""Files that MLflow keeps of a training: its generator, and what the gate stored at its run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import torch
from torch import Tensor

from cgan.data import csv_report
from cgan.errors import CganError, ModelError
from cgan.files import sha256_of
from cgan.model.file_facts import Facts, UnreadableError
from cgan.model.model_file import load_tensors, save_tensors
from cgan.project import (
    EVALUATION,
    GENERATOR,
    JUDGE,
    RUN_REFERENCE,
    TRAIN_AGAIN,
    VALIDATION,
    project_root,
)
from cgan.quality.judge import Judge, load_judge
from cgan.registry.client import Registry, mlflow_set_to, model_name, open_registry
from cgan.registry.history import CHAMPION, GATE_FOLDER, Version, lineage
from cgan.run.delivery import RUN_KEY_TAG
from cgan.store.address import is_absent, reason_of, store_uri, without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Run

    from cgan.quality.comparison import Ground
    from cgan.quality.evaluation import Inputs

log = logging.getLogger(__name__)

T = TypeVar("T")

TRAINING_DATA = "training_data.safetensors"


# --- generators ---------------------------------------------------------------------------------


def served(alias: str, load: Callable[[Path], T]) -> T:
    """What `load` makes of the generator that is champion, challenger or previous.

    When the champion's file is gone or damaged, the last champion that can be read is taken, with a
    warning. Raises ModelError when none can.
    """
    with open_registry(model_name()) as registry:
        return readable(registry, alias, load)[1]


def readable(registry: Registry, alias: str, load: Callable[[Path], T]) -> tuple[int, T]:
    """As `served`, with the number of the version that was taken."""
    first = registry.aliases().get(alias)
    if first is None:
        raise ModelError(
            f"`{registry.model}` has no {alias} in {registry.shown}. `cgan registry list` shows its "
            "versions; `cgan gate` makes the first champion."
        )
    line = lineage(registry.versions(), first) if alias == CHAMPION else [first]
    failures: list[str] = []
    for number in dict.fromkeys(reversed(line)):
        try:
            with generator_file(f"models:/{registry.model}/{number}") as path:
                loaded = load(path)
        except ModelError as error:
            failures.append(f"version {number}: {error}")
            continue
        if failures:
            log.warning(
                "WARNING: the champion cannot be read; version %d of `%s`, which was champion before "
                "it, is served instead.\n  %s\n  `cgan registry rollback --why …` makes that lasting.",
                number,
                registry.model,
                "\n  ".join(failures),
            )
        return number, loaded
    known = "\n  ".join(failures)
    raise ModelError(
        f"no {alias} of `{registry.model}` can be read:\n  {known}\nTrain again "
        "(`dvc repro --force train`, `cgan gate`), or promote a version whose files are whole."
    )


@contextlib.contextmanager
def generator_file(uri: str) -> Iterator[Path]:
    """A local copy, while the context lasts, of the generator that an MLflow URI leads to.

    `runs:/<run id>/generator`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact's URI.
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store has no such
    thing or it holds no generator, and its subclass UnreadableError when the store cannot give it now.
    """
    advice = (
        "Expected `runs:/<run id>/generator` or `models:/<name>@<alias>`; set MLFLOW_TRACKING_URI if "
        "the store is another."
    )
    if ".." in re.split(r"[\\/]", unquote(unquote(uri))):
        raise ModelError(f"{uri[:200]}: leads outside. {advice}")
    store = store_uri(project_root())
    if is_absent(store):
        raise ModelError(f"{uri}: there is no MLflow store {without_credentials(store)}. {advice}")
    with mlflow_set_to(store), tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        found = _download(uri, "", folder, uri, advice)
        files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: holds no generator.safetensors. {advice}")
        yield files[0]


def _download(address: str, name: str, folder: str, shown: str, advice: str) -> Path:
    """A file of an address, or all there is, from the store that MLflow is set to. Raises as above."""
    import mlflow

    try:
        whole = f"{address}/{name}" if name else address
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=whole, dst_path=folder))
        if found.is_dir() and not any(found.iterdir()):
            raise FileNotFoundError("there is nothing in it")
        return found
    except Exception as error:  # the stores let through what their clients raise
        store = f"{shown}: the MLflow store {without_credentials(mlflow.get_tracking_uri())}"
        if _is_gone(address, name):
            raise ModelError(f"{store} does not have it ({reason_of(error)}). {advice}") from None
        raise UnreadableError(
            f"{store} cannot give it now ({reason_of(error)}). Try again when it can."
        ) from None


def _is_gone(folder: str, name: str = "") -> bool:
    """Does the store answer, and say that it has nothing at a `models:/` or `runs:/` address, or no such file
    in that folder? Whatever else keeps a file from being read may pass."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path

    try:
        repository = get_artifact_repository(folder)
        repository = getattr(repository, "repo", repository)
        if repository.artifact_uri.startswith(("file:", "/")):
            # MLflow calls a folder that it may not read empty, and one whose disk is not there.
            path = Path(local_file_uri_to_path(repository.artifact_uri))  # type: ignore[no-untyped-call]
            try:
                (path / name).stat()
                return not name and not any(path.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return any(path.parents[2].iterdir())  # what the store has of other runs
        found = [Path(each.path).name for each in repository.list_artifacts(None)]
        return name not in found if name else not found
    except MlflowException as error:
        if "@" in folder and error.error_code == "INVALID_PARAMETER_VALUE":
            return True  # so MLflow calls an alias that it does not know
        return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")  # the version, or the run
    except Exception:  # the stores let through what their clients raise
        return False


def evaluation_of(version: Version) -> dict[str, Any] | None:
    """The evaluation's report, passport included, at a version's run; None where it has none.

    Raises UnreadableError where the store cannot be asked now."""
    try:
        with file_of_run(version, "reports", EVALUATION.name) as path:
            return dict(json.loads(path.read_text(encoding="utf-8")))
    except UnreadableError:
        raise
    except (ModelError, ValueError, TypeError):
        return None  # no report of ours


# --- the run of the generator at hand -----------------------------------------------------------


def last_training() -> dict[str, str]:
    """What the stage train wrote down of its run."""
    try:
        known = json.loads(RUN_REFERENCE.read_text(encoding="utf-8"))
        return {key: str(known[key]) for key in ("run_key", "experiment", "tracking_uri")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{RUN_REFERENCE}: names no MLflow run. Train first: `dvc repro`."
        ) from None


def run_of(registry: Registry, reference: dict[str, str]) -> Run:
    """The run that trained what lies in models/. Raises ModelError when they don't belong together."""
    run_key = reference["run_key"]
    found = registry.client.get_experiment_by_name(reference["experiment"])
    wanted = f"tags.`{RUN_KEY_TAG}` = '{run_key}'"
    runs = registry.client.search_runs([found.experiment_id], wanted) if found else []
    if not runs:
        raise ModelError(
            f"the store {registry.shown} has no run with the key {run_key}, which trained "
            f"{GENERATOR}; it was recorded in {reference['tracking_uri']}. Set MLFLOW_TRACKING_URI to that "
            f"store, restore it from a backup, or train again: {TRAIN_AGAIN}."
        )
    run: Run = runs[0]
    if run.data.tags.get("cgan.generator_sha256") != sha256_of(GENERATOR):
        raise ModelError(
            f"{GENERATOR} is not what run {run.info.run_id} trained. Restore both with `dvc checkout`, "
            f"or train again: {TRAIN_AGAIN}."
        )
    return run


# --- what the gate keeps at a run ---------------------------------------------------------------


def judge_of(version: Version) -> tuple[Judge, Tensor, Facts, Tensor]:
    """A version's judge, and what was kept of its training data: features float32 [N, 128], facts,
    fingerprints int64 [M]."""
    with file_of_run(version, GATE_FOLDER, JUDGE.name) as path:
        judge, _ = load_judge(path)
    with file_of_run(version, GATE_FOLDER, TRAINING_DATA) as path:
        tensors, facts = load_tensors(path, "training_data")
    return judge, tensors["features"], facts, tensors["fingerprints"]


def kept_profile(version: Version) -> dict[str, Any]:
    """The validation report of a version's data, as it was kept."""
    with file_of_run(version, GATE_FOLDER, VALIDATION.name) as path:
        return csv_report.load_report(path)


@contextlib.contextmanager
def file_of_run(version: Version, where: str, name: str) -> Iterator[Path]:
    """Raises ModelError when it is gone or damaged, and its subclass UnreadableError when the store cannot
    give it now."""
    shown = f"{where}/{name} of run {version.run_id}"
    advice = f"Version {version.number} was registered without `cgan gate`, or its files are gone."
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        path = _download(f"runs:/{version.run_id}/{where}", name, folder, shown, advice)
        try:
            yield path
        except UnreadableError:
            raise
        except CganError as error:  # of the reader; its advice fits a file of the project only
            reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
            raise ModelError(
                f"{shown} is damaged ({reason}). Restore the store's files from a backup, or train again: "
                "`dvc repro --force train`, `cgan gate`."
            ) from None


def fingerprints(images: Tensor) -> Tensor:
    """64 bits an image: int64 [N]. Equal images have equal ones."""
    hashes = [
        int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), signed=True)
        for image in images.numpy()
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def keep_at_run(
    registry: Registry, version: Version, ground: Ground, inputs: Inputs, say: Callable[[str], None]
) -> None:
    """Store at the run what a re-evaluation needs: judge, data profile, features of the training data."""
    kept = {file.path for file in registry.client.list_artifacts(version.run_id, GATE_FOLDER)}
    if f"{GATE_FOLDER}/{TRAINING_DATA}" in kept:  # written last; a kill may have cut it off
        with contextlib.suppress(CganError):
            judge_of(version)
            return
    say("Keeping the judge and a profile of the training data at the run.")
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        tensors = {
            "features": ground.floor,
            "fingerprints": fingerprints(inputs.training.images),
        }
        facts = {
            "judge_digest": inputs.judge_digest,
            "data_digest": inputs.training.metadata["digest"],
            "agreement": ground.agreed / len(inputs.heldout),
            "agreement_by_class": (
                ground.confusion.diagonal() / ground.confusion.sum(dim=1).clamp(min=1)
            ).tolist(),
            "fid_floor": ground.fid_floor.value,
            "heldout_images": len(inputs.heldout),
        }
        save_tensors(Path(folder) / TRAINING_DATA, "training_data", tensors, facts)
        for path in (JUDGE, VALIDATION, Path(folder) / TRAINING_DATA):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)
