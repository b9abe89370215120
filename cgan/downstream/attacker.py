"""An attacker, who scores training and held-out images: by drawings, a generator, a discriminator."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cgan.downstream import exposure
from cgan.downstream.membership import Attack, BoolArray, FloatArray, attacks, one_per_unit
from cgan.downstream.pretrained import features
from cgan.downstream.rounds import units_of
from cgan.errors import DataError
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.quality.judge import Progress, silent

DRAWINGS = 5_000  # at least: an attacker may ask for many
MOST_BYTES = 500_000_000  # of drawings beyond one for each image
PATIENCE_S = 120.0  # of a core, for those that a slow generator draws beyond one for each image
LEAST = 6  # members and others: as many as a hold-out has at least
MOST = 1_500  # of each, that are scored
FEATURED = 3_000  # drawings that the pretrained network looks at, sixty a second
RECONSTRUCTED = 200  # of members, and of others: each takes a tenth of a second
BY_PIXELS = "drawings, by pixels"
BY_FEATURES = "drawings, by a pretrained network's features"
BY_RECONSTRUCTION = "the generator's file, by reconstruction"
BY_DISCRIMINATOR = "the discriminator"


@dataclass(frozen=True, eq=False)
class Attacker:
    """Scores `images` uint8 [N, C, H, W] of `labels` int64 [N]. `member` bool [N]: which were trained on;
    they come first. `rows` int64 [members]: where these are among all training images."""

    images: Tensor
    labels: Tensor
    member: BoolArray
    rows: Tensor
    seed: int

    @classmethod
    def of(cls, train: Images, held_out: Images, seed: int) -> Self:
        """An attacker with one image of each group, at most MOST of each side, and only classes that both
        sides have.

        Raises DataError where fewer than LEAST are left.
        """
        chosen = []
        for name, part, other in (("train", train, held_out), ("held_out", held_out, train)):
            rows = one_per_unit(units_of(part).numpy(), seed)
            rows = rows[other.counts[part.labels[rows]] > 0]
            if len(rows) < LEAST:
                raise DataError(
                    f"{name}: expected at least {LEAST} images of different groups, of classes that the "
                    f"other part has too; found {len(rows)}. Give more, or hold out another fraction."
                )
            order = np.random.default_rng(seed).permutation(len(rows))
            chosen.append(np.sort(rows[order[:MOST]]))
        members, others = chosen
        parts = train.at(members).tensors, held_out.at(others).tensors
        images, labels = (torch.cat([part[n] for part in parts]) for n in (0, 1))
        member = np.arange(len(labels)) < len(members)
        return cls(images, labels, member, torch.from_numpy(members), seed)

    def by_pixels(self, drawn: Images) -> FloatArray:
        """How exposed each image is, by drawings alone."""
        return exposure.by_pixels(self.images, self.labels, *drawn.tensors[:2])

    def on_drawings(
        self, by_pixels: FloatArray, drawn: Images, pretrained: bool, progress: Progress = silent
    ) -> list[Attack]:
        """Attacks by drawings alone, adjusted for one another. `pretrained`: by its features, too."""
        scores = {BY_PIXELS: by_pixels}
        if pretrained:
            order = np.random.default_rng(self.seed).permutation(len(drawn))[:FEATURED]
            some = drawn.at(np.sort(order)).tensors
            seen = features(torch.cat([self.images, some.pixels]), progress)
            real, of_drawn = seen.split([len(self.images), len(some.pixels)])
            scores[BY_FEATURES] = exposure.by_features(real, self.labels, of_drawn, some.labels)
        return attacks(scores, self.member, self.labels.numpy(), self.seed)

    def on_generator(self, network: GeneratorNetwork, progress: Progress = silent) -> Attack:
        """The attack on the generator's file, with some of the images."""
        random, sides = np.random.default_rng(self.seed), (self.member, ~self.member)
        some = np.concatenate(
            [np.sort(random.permutation(np.flatnonzero(side))[:RECONSTRUCTED]) for side in sides]
        )
        images, labels = self.images[some], self.labels[some]
        scores = exposure.by_reconstruction(network, images, labels, self.seed, progress)
        return attacks({BY_RECONSTRUCTION: scores}, self.member[some], labels.numpy(), self.seed)[0]

    def on_discriminator(self, network: DiscriminatorNetwork) -> Attack:
        scores = exposure.by_discriminator(network, self.images, self.labels)
        return attacks({BY_DISCRIMINATOR: scores}, self.member, self.labels.numpy(), self.seed)[0]


def drawings_to_attack(model: GenerativeModel, train: Images, seed: int) -> Images:
    """A drawing for each training image, of its class and in their order; and again, until there are DRAWINGS
    or limits of memory or time are reached."""
    times = min(math.ceil(DRAWINGS / len(train)), max(1, MOST_BYTES // train.pixels.nbytes))
    if each := model.seconds_per_drawing:
        times = min(times, max(1, int(PATIENCE_S / (each * len(train)))))
    labels = train.tensors.labels.repeat(times)
    return Images(model.draw(labels, seed), labels, train.class_names)
