"""An attacker, who scores training and held-out images: by drawings, a generator, a discriminator."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cgan.attacks import membership_scores
from cgan.attacks.membership import (
    AttackResult,
    BoolArray,
    FloatArray,
    IntArray,
    attacks,
    one_per_unit,
    strata_of,
)
from cgan.downstream.pretrained import features
from cgan.downstream.rounds import units_of
from cgan.errors import DataError
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.quality.judge import Progress, silent

MIN_DRAWINGS = 5_000  # that are attacked: an attacker may ask for many
# Limits of the drawings beyond one for each image: bytes of pixels; seconds of a core, of a slow generator.
MAX_EXTRA_BYTES = 500_000_000
MAX_EXTRA_S = 120.0
MIN_PER_SIDE = 6  # members, and non-members, that are scored: as many as a hold-out has at least
MAX_PER_SIDE = 1_500
MAX_FEATURE_DRAWINGS = 3_000  # that the pretrained network looks at, sixty a second
MAX_RECONSTRUCTED_PER_SIDE = 200  # members, and non-members: each takes a tenth of a second
BY_PIXELS = "drawings, by pixels"
BY_FEATURES = "drawings, by a pretrained network's features"
BY_RECONSTRUCTION = "the generator's file, by reconstruction"
BY_DISCRIMINATOR = "the discriminator"


@dataclass(frozen=True, eq=False)
class Attacker:
    """Scores `images` uint8 [N, C, H, W] of `labels` int64 [N]. `member` bool [N]: which were trained
    on; they come first. `member_rows` int64 [members]: where these are among all training images.

    `strata` int64 [N]: images with equal ones are compared, those of one class and of groups of about one
    size. A split that keeps groups whole fills up its smaller part with small groups, and an image without
    look-alikes scores otherwise than one that has some: that is no leak."""

    images: Tensor
    labels: Tensor
    strata: IntArray
    member: BoolArray
    member_rows: Tensor
    seed: int

    @classmethod
    def of(cls, train: Images, held_out: Images, seed: int) -> Self:
        """An attacker with one image of each group, at most MAX_PER_SIDE members and non-members, and only
        classes that both sides have.

        Raises DataError where fewer than MIN_PER_SIDE are left.
        """
        of_each = []
        for name, part, other in (("train", train, held_out), ("held_out", held_out, train)):
            units = units_of(part).numpy()
            rows = one_per_unit(units, seed)
            of_each.append((name, units, rows[other.counts[part.labels[rows]] > 0]))
        name, _, fewest = min(of_each, key=lambda side: len(side[2]))
        if len(fewest) < MIN_PER_SIDE:
            if not len(held_out):  # then no image of `train` is of its classes
                name = "held_out"
            raise DataError(
                f"{name}: expected at least {MIN_PER_SIDE} images of different groups, of classes that the "
                f"other part has too; found {len(fewest)}. Give more, or hold out another fraction."
            )
        chosen, sizes = [], []
        for _, units, rows in of_each:
            order = np.random.default_rng(seed).permutation(rows)
            chosen.append(np.sort(order[:MAX_PER_SIDE]))
            sizes.append(np.bincount(units)[units[chosen[-1]]])
        member_rows, other_rows = chosen
        members, others = train.at(member_rows).tensors, held_out.at(other_rows).tensors
        labels = torch.cat([members.labels, others.labels])
        return cls(
            images=torch.cat([members.pixels, others.pixels]),
            labels=labels,
            strata=strata_of(labels.numpy(), np.concatenate(sizes)),
            member=np.arange(len(labels)) < len(member_rows),
            member_rows=torch.from_numpy(member_rows),
            seed=seed,
        )

    def drawing_scores(
        self, drawn: Images, pretrained: bool, progress: Progress = silent
    ) -> dict[str, FloatArray]:
        """The scores of each image by drawings alone: BY_PIXELS and, with a `pretrained` network's features,
        BY_FEATURES."""
        pixels, drawn_labels, _ = drawn.tensors
        by_pixels = membership_scores.pixel_scores(self.images, self.labels, pixels, drawn_labels)
        scores = {BY_PIXELS: by_pixels}
        if pretrained:
            order = np.random.default_rng(self.seed).permutation(len(drawn))
            some = drawn.at(np.sort(order[:MAX_FEATURE_DRAWINGS])).tensors
            both = features(torch.cat([self.images, some.pixels]), progress)
            of_real, of_drawn = both.split([len(self.images), len(some.pixels)])
            scores[BY_FEATURES] = membership_scores.feature_scores(
                of_real, self.labels, of_drawn, some.labels
            )
        return scores

    def on_drawings(self, scores: Mapping[str, FloatArray]) -> list[AttackResult]:
        """The attacks by `drawing_scores`, adjusted for one another."""
        return attacks(scores, self.member, self.strata, self.seed)

    def on_generator(self, network: GeneratorNetwork, progress: Progress = silent) -> AttackResult:
        """The attack on the generator's file, with some of the images."""
        random = np.random.default_rng(self.seed)
        chosen = [
            np.sort(random.permutation(np.flatnonzero(side))[:MAX_RECONSTRUCTED_PER_SIDE])
            for side in (self.member, ~self.member)
        ]
        some = np.concatenate(chosen)
        images, labels = self.images[some], self.labels[some]
        scores = membership_scores.reconstruction_scores(
            network, images, labels, self.seed, progress
        )
        return attacks(
            {BY_RECONSTRUCTION: scores}, self.member[some], self.strata[some], self.seed
        )[0]

    def on_discriminator(self, network: DiscriminatorNetwork) -> AttackResult:
        scores = membership_scores.discriminator_scores(network, self.images, self.labels)
        return attacks({BY_DISCRIMINATOR: scores}, self.member, self.strata, self.seed)[0]


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
