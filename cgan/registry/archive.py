"""Files that MLflow keeps of a training: its generator, and what the gate stored at its run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import torch
from torch import Tensor

from cgan.data import drift
from cgan.errors import CganError, ModelError
from cgan.model.file_facts import Facts
from cgan.model.model_file import load_tensors, save_tensors
from cgan.project import EVALUATION, JUDGE, VALIDATION
from cgan.quality.judge import Judge, load_judge
from cgan.registry.client import Registry, model_name, open_registry
from cgan.registry.history import CHAMPION, GATE_FOLDER, Version, lineage
from cgan.store.address import reason_of

if TYPE_CHECKING:
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
    for number in reversed(line):
        try:
            with generator_file(f"models:/{registry.model}/{number}") as path:
                loaded = load(path)
        except ModelError as error:
            failures.append(f"version {number}: {error}")
            continue
        if failures:
            log.warning(
                "WARNING: the champion cannot be read; version %d of `%s`, champion before it, is served."
                "\n  %s\n  `cgan registry rollback --why …` makes that lasting.",
                *(number, registry.model, "\n  ".join(failures)),
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
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store cannot give it.
    """
    advice = (
        "Expected `runs:/ID/generator` or `models:/NAME@ALIAS` in the store of MLFLOW_TRACKING_URI."
    )
    if ".." in re.split(r"[\\/]", unquote(unquote(uri))):
        raise ModelError(f"{uri[:200]}: leads outside. {advice}")
    with open_registry() as registry, downloaded(registry, uri, advice) as found:
        files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: holds no generator.safetensors. {advice}")
        yield files[0]


@contextlib.contextmanager
def downloaded(registry: Registry, uri: str, advice: str) -> Iterator[Path]:
    """A local copy of a file or folder of the store."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        try:
            found = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:  # the stores let through what their clients raise
            raise ModelError(
                f"{uri}: the MLflow store {registry.shown} cannot give it ({reason_of(error)}). {advice}"
            ) from None
        yield found


# --- what is kept at a run ----------------------------------------------------------------------


def evaluation_of(version: Version) -> dict[str, Any] | None:
    """The evaluation's report at a version's run; None where there is none that can be read."""
    address = f"runs:/{version.run_id}/reports/{EVALUATION.name}"
    with (
        contextlib.suppress(ModelError, ValueError, TypeError),
        open_registry() as registry,
        downloaded(registry, address, "") as path,
    ):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


@dataclass(frozen=True)
class Kept:
    """What the gate kept of a version's training, to judge other data by: the validation report, the judge,
    its features of the training images float32 [N, 128], their fingerprints int64 [M], and facts."""

    profile: dict[str, Any]
    judge: Judge
    features: Tensor
    fingerprints: Tensor
    facts: Facts


def kept_of(registry: Registry, version: Version) -> Kept:
    """Raises ModelError when it is gone or damaged, or the store cannot give it."""
    address = f"runs:/{version.run_id}/{GATE_FOLDER}"
    advice = (
        "Restore the store's files, or train again: `dvc repro --force train`, then `cgan gate`, which "
        "keeps them for each version that it registers."
    )
    with downloaded(registry, address, advice) as folder:
        try:
            judge, _ = load_judge(folder / JUDGE.name)
            tensors, facts = load_tensors(folder / TRAINING_DATA, "training_data")
            profile = drift.load_report(folder / VALIDATION.name)
        except CganError as error:  # its advice fits a file of the project only
            reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
            raise ModelError(f"{address}: missing or damaged ({reason}). {advice}") from None
        return Kept(profile, judge, tensors["features"], tensors["fingerprints"], facts)


def fingerprints(images: Tensor) -> Tensor:
    """64 bits an image: int64 [N]. Equal images have equal ones."""
    hashes = [
        int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), signed=True)
        for image in images.numpy()
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def keep_at_run(registry: Registry, version: Version, ground: Ground, inputs: Inputs) -> None:
    """Store at the run what `kept_of` reads."""
    tensors = {"features": ground.floor, "fingerprints": fingerprints(inputs.training.images)}
    right, images = ground.confusion.diagonal(), ground.confusion.sum(dim=1)
    facts = {
        "data_digest": inputs.training.metadata["digest"],
        "agreement": ground.agreed / len(inputs.heldout),
        "agreement_by_class": (right / images.clamp(min=1)).tolist(),
        "fid_floor": ground.fid_floor.value,
        "heldout_images": len(inputs.heldout),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / TRAINING_DATA, "training_data", tensors, facts)
        for path in (JUDGE, VALIDATION, Path(folder) / TRAINING_DATA):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)
