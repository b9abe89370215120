"""Presets: named sets of `train` params, each given by the values that differ from the defaults.

`cgan.fit(images, preset="fast")` trains with one; `cgan preset fast` writes all its values into params.yaml,
so that a stage looks nothing up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgan.base.errors import ParamsError
from cgan.params.sections import AutoTrainParams


@dataclass(frozen=True)
class Preset:
    """`changes`: values of `AutoTrainParams` in place of the defaults."""

    description: str
    changes: Mapping[str, Any]


PRESETS = {
    "default": Preset("A minute for digits on two cores; what is `auto` suits the images.", {}),
    # At most 16 features a map, latents of half the size, much weight on the class logit, a higher learning
    # rate, no gradient penalty, an average of short memory, and half as many probes: each takes an eighth of
    # a second.
    "fast": Preset(
        "Legible digits in seconds, less varied.",
        {
            "latent_dim": 32,
            "max_width": 16,
            "auxiliary_discriminator": 3.0,
            "class_logit_weight": 4.0,
            "r1_gamma": 0.0,
            "lr": 0.0055,
            "decay_from": 0.7,
            "total_kimg": 31.0,
            "ema_half_life_kimg": 4.0,
            "probes": 4,
        },
    ),
    # Longer, with a longer memory of the average, and with two passes a step, which take a third more time
    # and in the long run give digits that teach a class network more.
    "best": Preset(
        "Minutes instead of a minute, and better for it.",
        {
            "auxiliary_discriminator": 1.0,
            "auxiliary_generator": 0.2,
            "class_logit_weight": 0.0,
            "updates": "two_passes",
            "adam_beta1": 0.3,
            "decay_from": 0.2,
            "total_kimg": 700.0,
            "ema_half_life_kimg": 30.0,
        },
    ),
    # Four times the batch of `default`, so twice its learning rate (for Adam it goes with the square root of
    # the batch: Malladi et al., arXiv:2205.10287), and twice the images in half the updates: a GPU computes
    # more and starts fewer kernels.
    "gpu": Preset(
        "Large batches for a GPU.", {"batch_size": 384, "lr": 0.009, "total_kimg": 320.0}
    ),
    # Drawings are put together from pieces of the training images, which the generator's file holds. It takes
    # seconds in place of minutes, and a tenth of a second for each drawing.
    "local_score": Preset(
        "Photographs without a training; its file holds the training images.",
        {"generator": "local_score"},
    ),
    # The demo's own values: constant learning rate, no average of the weights.
    "demo": Preset(
        "The R/MXNet demo that this project replaces (jeremiedb/gan_example).",
        {
            "generator": "demo",
            "latent_dim": 96,
            "generator_width": 96,
            "lr": 1.0,
            "decay_from": 1.0,
            "batch_size": 64,
            "total_kimg": 153.6,
            "ema_half_life_kimg": 0.0,
            "precision": "float32",
        },
    ),
}


def preset_params(name: str) -> dict[str, Any]:
    """Every param of `train` but seed and device, with its value in this preset. Raises ParamsError for an
    unknown name."""
    if name not in PRESETS:
        raise ParamsError(f"no preset `{name}`. There are: {', '.join(PRESETS)}.")
    return AutoTrainParams().model_dump(exclude={"seed", "device"}) | dict(PRESETS[name].changes)
