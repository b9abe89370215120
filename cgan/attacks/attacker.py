"""An attacker who has drawings, and asks of real images whether they were trained on."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cgan.attacks.membership import (
    AttackResult,
    BoolArray,
    FloatArray,
    IntArray,
    attack,
    one_per_unit,
    strata_of,
)
from cgan.errors import DataError
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.quality.likeness import nearest_neighbours
from cgan.splitting import units_of

MIN_DRAWINGS = 5_000  # that are attacked: an attacker may ask for many
# Limits of the drawings beyond one for each image: bytes of pixels; seconds of a core, of a slow generator.
MAX_EXTRA_BYTES = 500_000_000
MAX_EXTRA_S = 120.0
MIN_PER_SIDE = 6  # members, and non-members, that are scored: as many as a hold-out has at least
MAX_PER_SIDE = 1_500
MIN_DISTANCE = 1e-3  # no distance counts as less, for that of a copy, 0, has no logarithm


@dataclass(frozen=True, eq=False)
class Attacker:
    """Asks of `images` uint8 [N, C, H, W] of `labels` int64 [N] whether they were trained on, as those of
    `member` bool [N] were.

    `strata` int64 [N]: images with equal ones are compared, those of one class and of groups of about one
    size. A split that keeps groups whole fills up its smaller part with small groups, and an image without
    look-alikes scores otherwise than one that has some: that is no leak."""

    images: Tensor
    labels: Tensor
    strata: IntArray
    member: BoolArray
    seed: int

    @classmethod
    def of(cls, train: Images, held_out: Images, seed: int) -> Self:
        """An attacker with one image of each group, at most MAX_PER_SIDE members and non-members, and only
        classes that both sides have.

        Raises DataError where fewer than MIN_PER_SIDE are left.
        """
        parts, sizes = list[Images](), list[IntArray]()
        for name, part, other in (("train", train, held_out), ("held_out", held_out, train)):
            units = units_of(part)
            rows = one_per_unit(units, seed)
            rows = rows[other.counts[part.labels[rows]] > 0]
            if len(rows) < MIN_PER_SIDE:
                raise DataError(
                    f"{name}: expected at least {MIN_PER_SIDE} images of different groups, of classes that "
                    f"the other part has too; found {len(rows)}. Give more, or hold out another fraction."
                )
            rows = np.random.default_rng(seed).permutation(rows)[:MAX_PER_SIDE]
            parts.append(part.at(rows))
            sizes.append(np.bincount(units)[units[rows]])
        labels = np.concatenate([part.labels for part in parts])
        return cls(
            images=torch.cat([part.tensors.pixels for part in parts]),
            labels=torch.from_numpy(labels),
            strata=strata_of(labels, np.concatenate(sizes)),
            member=np.arange(len(labels)) < len(parts[0]),
            seed=seed,
        )

    def attack(self, drawn: Images) -> AttackResult:
        """The attack by drawings alone."""
        scores = nearness_scores(self.images, self.labels, drawn)
        return attack(scores, self.member, self.strata, self.seed)


def nearness_scores(images: Tensor, labels: Tensor, drawn: Images) -> FloatArray:
    """How much each image, uint8 [N, C, H, W], looks like a member: the logarithm of its distance to the
    nearest other real image of its class, less that to the nearest drawing, for a typical image has near
    neighbours whatever was trained (after GAN-Leaks: Chen et al., arXiv:1909.03935, who calibrate by a
    reference model instead).

    Distances are those of `cgan.quality.likeness`, which sees past small shifts and other brightness. Real
    neighbours are looked for among the same images. Where a class has no drawings or only one image, nothing
    is known: all of it score 0.
    """
    to_drawn = nearest_neighbours(images, labels, *drawn.tensors[:2])[0][:, 0]
    # The two nearest of its class: one of them is the image itself, unless it has copies.
    distances, rows = nearest_neighbours(images, labels, images, labels, 2)
    is_itself = rows == torch.arange(len(images))[:, None]
    to_real = distances.masked_fill(is_itself, math.inf).amin(dim=1)
    known = to_drawn.isfinite() & to_real.isfinite()
    logs = to_real.clamp(min=MIN_DISTANCE).log() - to_drawn.clamp(min=MIN_DISTANCE).log()
    return logs.where(known, 0.0).double().numpy()


def drawings_to_attack(model: GenerativeModel, train: Images, seed: int) -> Images:
    """A drawing for each training image, of its class and in their order; and again, until there are
    MIN_DRAWINGS or limits of memory or time are reached."""
    times = min(
        math.ceil(MIN_DRAWINGS / len(train)), max(1, MAX_EXTRA_BYTES // train.pixels.nbytes)
    )
    if seconds := model.seconds_per_drawing:
        times = min(times, max(1, int(MAX_EXTRA_S / (seconds * len(train)))))
    labels = train.tensors.labels.repeat(times)
    return Images(model.draw(labels, seed), labels, train.class_names)
