"""The facts that determine the weights that a training ends with: their hash names its folder."""

from pathlib import Path
from typing import Any

import torch

from cgan.base.files import sha256_of
from cgan.data.images import Images
from cgan.models.file_facts import FORMAT
from cgan.models.hardware import Hardware
from cgan.params.sections import TrainParams

CODE_FOLDER = Path(__file__).resolve().parent.parent
# The packages that compute the weights: their sources are hashed, comments included.
HASHED_PACKAGES = ("models", "training")


def determining_facts(
    params: TrainParams, images: Images, hardware: Hardware, judge: str
) -> dict[str, Any]:
    """Facts that determine a training's weights and the facts in its file, as plain JSON. `judge` is the
    digest of the judge that probes; "" without one.

    Not among them: the model of the CPU or GPU, packages other than torch, code outside HASHED_PACKAGES. The
    formulas of a probe (`cgan.quality.judge`) change no weight, but can end a training.
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
            for path in sorted((CODE_FOLDER / package).glob("*.py"))
            if path.name != "fit.py"  # it calls the training, and computes nothing
        },
        "torch": torch.__version__,
        "device": str(hardware.device),
        "precision": str(hardware.precision),
    }


def data_facts(images: Images) -> dict[str, Any]:
    """The facts in the generator's file about the images that it was trained on."""
    names = {"class_names": images.class_names} if images.is_named else {}
    return {"data_sha256": images.source_sha256, "data_digest": images.digest} | names
