"""What `auto` is in the section `train`: the rules by which a training fits its data, all of them.

A discriminator knows images that lie far apart one by one, and then its generator draws them badly. It is
slower to learn them where it sees them moved, and the drawings become legible where the class counts for
more. Near each other lie many images of simple forms: there both would cost variety for nothing. How far
apart images lie tells this better than their number: 5,000 digits need no help, and 2,000 characters of
three alphabets do, though each alphabet has more images than each digit. docs/log.md has the trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool2d

from cgan.data.dataset import Dataset
from cgan.params.sections import TrainChoices, TrainParams

NEAR = {"class_logit_weight": 1.25, "max_shift": 0, "total_kimg": 160.0}
FAR = {"class_logit_weight": 2.5, "total_kimg": 240.0}
SHIFT = 0.07  # of the side, where images lie far apart
FAR_APART = 0.53
LOOKED_AT, COMPARED, AT_ONCE = 1000, 4000, 100  # images, at most
COMPARED_SIDE = (
    32  # pixels: larger images are made smaller, so that 4,000 of any size fit into memory
)
LEAST_SIDE = 16  # pixels: in smaller images the moved edge is too much of the whole


@dataclass(frozen=True)
class Fit:
    """The params of a training, and in words what was chosen for its data: nothing without `auto`."""

    params: TrainParams
    choice: str


def fit(choices: TrainChoices, data: Dataset) -> Fit:
    """A number for each `auto`; what params.yaml says in numbers stays."""
    apart = sparsity(data)
    where, rules = "near each other", dict(NEAR)
    if apart > FAR_APART:
        side = min(data.images.shape[2:])
        where, rules = (
            "far apart",
            FAR | {"max_shift": round(SHIFT * side) if side >= LEAST_SIDE else 0},
        )
    params = filled(choices, rules)
    words = ", ".join(
        f"{name} {getattr(params, name):g}" for name in rules if getattr(choices, name) == "auto"
    )
    return Fit(params, f"{words} (images {where}: {apart:.2f})" if words else "")


def filled(choices: TrainChoices, rules: Mapping[str, Any] = NEAR) -> TrainParams:
    """The choices, with one of the rules in the place of each `auto`."""
    values = choices.model_dump()
    if choices.discriminator == "demo":  # it has no class logits
        rules = {**rules, "class_logit_weight": 0.0}
    return TrainParams(**values | {n: rule for n, rule in rules.items() if values[n] == "auto"})


def sparsity(data: Dataset) -> float:
    """How far apart the images lie: the median distance of one to its nearest other, over √2 standard
    deviations of all, which is about how far two lie apart by chance. 0: copies; 1: no image is like another.

    Distances are between pixels. A large set is judged by a sample, drawn by a seed of its own.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:COMPARED]
    height, width = (min(side, COMPARED_SIDE) for side in data.images.shape[2:])
    pixels = torch.cat(
        [
            adaptive_avg_pool2d(data.images[rows].float(), (height, width)).flatten(1)
            for rows in order.split(AT_ONCE)
        ]
    )
    some = pixels[:LOOKED_AT]
    distances = torch.cdist(some, pixels)
    distances.fill_diagonal_(math.inf)
    typical: float = math.sqrt(2) * pixels.std(dim=0).norm().item()
    nearest: float = distances.min(dim=1).values.median().item()
    return nearest / max(typical, 1e-9)
