"""The images of which an attacker asks whether they were trained on, and the *shadows*: generators by the
same recipe, each trained on half of all images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from cgan.base.errors import DataError
from cgan.base.progress import Progress
from cgan.data.arrays import IntArray
from cgan.data.images import Images, joined
from cgan.data.splitting import units_of
from cgan.params.sections import AutoTrainParams
from cgan.privacy.membership import Attack, BoolArray, FloatArray, attack
from cgan.utility.rounds import PartGenerator, assign_folds

MIN_PER_SIDE = 6  # members, and non-members: as many as a hold-out has at least
MAX_PER_SIDE = 1_500


@dataclass(frozen=True, eq=False)
class Candidates:
    """N images and their U *units*: those of one group, or copies, which are asked about together.

    - `data`: the training and the held-out images; `units`: the row of the first image of each one's unit;
    - `images`: those that are asked about, at `rows` int64 [N] of `data`; `unit_of` int64 [N]: their units,
      numbered below U;
    - `member` bool [U]: was the unit trained on? `strata` int64 [U]: units of a class and of about one size,
      for a split that keeps groups whole fills its smaller part up with small ones; `seed`: of halves and
      attack.
    """

    data: Images
    units: IntArray
    images: Images
    rows: IntArray
    unit_of: IntArray
    member: BoolArray
    strata: IntArray
    seed: int

    @classmethod
    def choose(cls, train: Images, held_out: Images, seed: int) -> Self:
        """The images of at most MAX_PER_SIDE members and non-members, and of classes that both sides have.
        Raises DataError where fewer than MIN_PER_SIDE are left."""
        data = joined(train, held_out)
        units = np.concatenate([units_of(train), units_of(held_out) + len(train)])
        usable = (train.counts > 0)[data.labels] & (held_out.counts > 0)[data.labels]
        is_member, chosen = units < len(train), list[IntArray]()
        for name, side in (("train", is_member), ("held_out", ~is_member)):
            found = np.unique(units[usable & side])
            if len(found) < MIN_PER_SIDE:
                raise DataError(
                    f"{name}: expected at least {MIN_PER_SIDE} images of different groups, of classes that "
                    f"the other part has too; found {len(found)}. Give more, or hold out another fraction."
                )
            chosen.append(np.random.default_rng(seed).permutation(found)[:MAX_PER_SIDE])
        rows = np.flatnonzero(np.isin(units, np.concatenate(chosen)) & usable)
        names, unit_of, sizes = np.unique(units[rows], return_inverse=True, return_counts=True)
        size = np.log2(sizes).astype(np.int64)
        return cls(
            data=data,
            units=units,
            images=data.at(rows),
            rows=rows,
            unit_of=unit_of,
            member=names < len(train),
            strata=data.labels[names] * (size.max() + 1) + size,
            seed=seed,
        )

    def attack(self, scores: FloatArray) -> Attack:
        """The attack by scores of the images, float64 [N]; a unit has the mean of its own."""
        means = np.bincount(self.unit_of, scores) / np.bincount(self.unit_of)
        return attack(means, self.member, self.strata, self.seed)

    def most_exposed(self, scores: FloatArray, count: int) -> IntArray:
        """Rows of the training images with the highest scores, each of another unit."""
        order = np.argsort(-scores, kind="stable")
        order = order[self.member[self.unit_of[order]]]
        firsts = np.unique(self.unit_of[order], return_index=True)[1]
        exposed: IntArray = order[np.sort(firsts)[:count]]
        return exposed

    def shadows(
        self,
        training: AutoTrainParams,
        count: int,
        labels: IntArray,
        folder: Path,
        progress: Progress,
    ) -> list[tuple[PartGenerator, BoolArray]]:
        """`count` shadows, which draw `labels`, two of each division of all images into halves: with units
        whole, and with as much of each class. And which of `images` each has not seen, bool [N]. Raises
        DataError where a class has one unit alone."""
        data, shadows = self.data, []
        for number in range(count):
            seed = self.seed + number // 2
            half_of = assign_folds(data.labels, self.units, 2, seed, data.class_names)
            unseen = half_of == number % 2
            shadow = PartGenerator(
                name=f"generator {number + 1} of {count}",
                images=data.at(~unseen),
                # None has the seed of the generator, which the attacker does not know.
                training=training.model_copy(update={"seed": training.seed + 1 + number}),
                folder=folder,
                labels=labels,
                seed=self.seed + 1 + number,
                progress=progress,
            )
            shadows.append((shadow, unseen[self.rows]))
        return shadows
