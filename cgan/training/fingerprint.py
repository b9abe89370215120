"""The facts that determine the bytes of a training's result, and their hash, which names its folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from cgan.files import sha256_of
from cgan.images import Images
from cgan.model.file_facts import FORMAT
from cgan.model.hardware import Hardware
from cgan.params.sections import TrainParams

PACKAGE = Path(__file__).resolve().parent.parent
# The packages that compute the result. Their sources are hashed: a change of other code cannot change it.
HASHED_PACKAGES = ("model", "training")


def result_facts(
    params: TrainParams, images: Images, hardware: Hardware, judge: str
) -> dict[str, Any]:
    """Everything that determines a training's weights, the facts in its file and its probes, as plain JSON.

    `judge` is the digest of the judge that probes; "" without one.
    """
    return {
        "format": FORMAT,
        "params": params.relevant(),
        "data": data_facts(images),
        "judge": judge,
        "classes": images.classes,  # by `validate.classes` there can be more than the images show
        "code": {
            f"{package}/{path.name}": sha256_of(path)
            for package in HASHED_PACKAGES
            for path in sorted((PACKAGE / package).glob("*.py"))
        },
        "torch": torch.__version__,
        "device": str(hardware.device),
        "precision": str(hardware.precision),
    }


def data_facts(images: Images) -> dict[str, Any]:
    """The facts in the generator's file about the images that it was trained on."""
    names = {"class_names": images.class_names} if images.is_named else {}
    return {"data_sha256": images.source_sha256, "data_digest": images.digest} | names


def fingerprint(facts: dict[str, Any]) -> str:
    """16 hex digits of the sha256 of `result_facts`."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
