"""What is kept of a version's data at its run, to compare later data with: how the images of each class
looked, the version's judge, and what that saw in the hold-out."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_tensors, save_tensors
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, downloaded
from cgan.pipeline.registry.version import Version
from cgan.project import JUDGE
from cgan.quality.class_shift import Moments
from cgan.quality.conditions import Conditions
from cgan.quality.judge import Judge, load_judge

KEPT_FILE = "training_data.safetensors"
CHAMPION_ADVICE = (
    "bring back the previous champion (`cgan registry rollback --why …`), or delete the alias `champion` in "
    "MLflow, so that the next `cgan gate` chooses a first champion"
)


@dataclass(frozen=True)
class KeptData:
    """`looks`: the moments of all images' looks; `judge`, which named the label of `correct` of the
    `held_out` images, int64 [classes]; `labelled_image_digests` int64 [N]: of all images and labels."""

    looks: Moments
    correct: Tensor
    held_out: Tensor
    labelled_image_digests: Tensor
    judge: Judge

    @classmethod
    def load(cls, registry: Registry, version: Version) -> KeptData:
        """What was kept of a version. Raises ModelError when it is gone, damaged or of an older cgan, or
        the store cannot give it."""
        uri = f"runs:/{version.run_id}/{GATE_FOLDER}"
        advice = f"If the store's files are lost, {CHAMPION_ADVICE}."
        with downloaded(registry, uri, advice) as folder:
            try:
                judge, _ = load_judge(folder / JUDGE.name)
                tensors, _ = load_tensors(folder / KEPT_FILE, "training_data")
                moments = (tensors[f"looks.{key}"] for key in ("counts", "means", "variances"))
                return cls(
                    looks=Moments(*moments),
                    correct=tensors["right"],
                    held_out=tensors["seen.counts"].long(),
                    labelled_image_digests=tensors["fingerprints"],
                    judge=judge,
                )
            except (CganError, KeyError) as error:  # its advice fits a file of the project only
                reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
                raise ModelError(f"{uri}: missing or damaged ({reason}). {advice}") from None


def keep_data(registry: Registry, version: Version, inputs: Inputs, conditions: Conditions) -> None:
    """Store at the version's run what `KeptData.load` reads."""
    images, labels = all_images(inputs)
    confusion = conditions.evaluation_set.judge_accuracy.confusion
    looks = Moments.of_images(images, labels, inputs.held_out.classes)
    tensors = {
        **{f"looks.{key}": value for key, value in vars(looks).items()},
        "right": confusion.diagonal(),
        "seen.counts": confusion.sum(dim=1),
        "fingerprints": labelled_image_digests(images, labels),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / KEPT_FILE, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / KEPT_FILE):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def labelled_image_digests(images: Tensor, labels: Tensor) -> Tensor:
    """A hash of each image with its label: int64 [N]. Equal images with equal labels have equal hashes."""
    pairs = zip(images.numpy(), labels.tolist(), strict=True)
    digests = (
        hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest()
        for image, label in pairs
    )
    return torch.tensor([int.from_bytes(d, signed=True) for d in digests], dtype=torch.int64)


def all_images(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The images and labels of the training part and the hold-out."""
    parts = (inputs.train, inputs.held_out)
    pixels, labels, _ = zip(*(part.tensors for part in parts), strict=True)
    return torch.cat(pixels), torch.cat(labels)
