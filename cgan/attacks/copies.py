"""Near copies of training images among drawings, and the test of who is copied."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.special import bdtrc

from cgan.attacks import membership
from cgan.attacks.membership import BoolArray, FloatArray, IntArray, strata_of
from cgan.images import Images, joined
from cgan.proportions import proportion_interval
from cgan.quality.likeness import find_near_copies, nearest_within
from cgan.splitting import units_of

COPIES_LEVEL = 0.01  # of the test
# A harmless generator may draw only what is typical, which lies near a training image more often than real
# images do: the most typical tenth of digits 1.4 to 4.1 times as often. Four times is allowed, and a tenth of
# the drawings always.
TYPICAL_FACTOR, LEAST_TYPICAL_SHARE = 4, 0.1


@dataclass(frozen=True, kw_only=True)
class Copies:
    """`share`: of the `compared` drawings, those that lie nearer to a training image than real images usually
    do; `real`: the share of `real_compared` real images that lie as near. `copied_members`,
    `copied_non_members`: how many training and held-out images (of a group, one) are the nearest of all to a
    drawing that lies so near. `p_value`: of the test that drawings lie no nearer to the one than the other.
    """

    share: float
    real: float
    compared: int
    real_compared: int
    copied_members: int
    copied_non_members: int
    p_value: float

    @classmethod
    def of(cls, drawn: Images, train: Images, held_out: Images, seed: int) -> Self:
        """The copies, as `evaluate` counts them, and the test of who is copied."""
        # `find_near_copies` looks at the first drawings, which may all be of one class.
        order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))
        pixels, labels, _ = drawn.at(order).tensors
        found = find_near_copies(pixels, labels, train, held_out, seed)
        compared = len(found.is_copy)
        both = joined(train, held_out)
        # All of them are searched together: of fewer images a search finds more of what is near.
        rows, nearness = nearest_within(pixels[:compared], labels[:compared], both, found.limits)
        # A unit is named by the row of its first image.
        units = np.concatenate([units_of(train), units_of(held_out) + len(train)])
        nearest = np.zeros(len(both))  # of a unit, to the nearest drawing
        near = rows >= 0
        np.maximum.at(nearest, units[rows[near].numpy()], nearness[near].numpy())
        every = np.unique(units)
        member, copied = every < len(train), nearest[every] > 0
        return cls(
            share=float(found.is_copy.double().mean()),
            real=found.real,
            compared=compared,
            real_compared=found.real_compared,
            copied_members=int((copied & member).sum()),
            copied_non_members=int((copied & ~member).sum()),
            p_value=copied_p_value(
                nearness=nearest[every],
                member=member,
                strata=strata_of(both.labels[every], np.bincount(units)[every]),
                other_drawings=compared - int((near & (rows < len(train))).sum()),
                typical_share=typical_share(found.real, found.real_compared),
                seed=seed,
            ),
        )

    @property
    def leak(self) -> bool:
        """Are more training images copied than chance explains?"""
        return self.p_value < COPIES_LEVEL


def typical_share(real: float, compared: int) -> float:
    """The share of harmless drawings, however typical, that may lie near a training image, where `real` of
    `compared` real images do."""
    most_real = proportion_interval(real, compared)[1]
    return min(1.0, max(LEAST_TYPICAL_SHARE, TYPICAL_FACTOR * most_real))


def copied_p_value(
    nearness: FloatArray,
    member: BoolArray,
    strata: IntArray,
    other_drawings: int,
    typical_share: float,
    seed: int,
) -> float:
    """The smaller p-value of two tests, doubled (Bonferroni). `nearness`, `member`, `strata` are of the real
    images [N], of a group of one: how near the nearest drawing is, 0 where none is within the limit.

    Whatever the drawings are, similar, repeated or blurred, if they were made without knowledge of who is a
    member, then within a stratum the copied images are as likely members as any. So the sum of the members'
    nearness is compared with permutations. It counts real images, not drawings, so that a picture drawn a
    hundred times counts once.

    But where a generator repeats a few training images, these are too few for that test. So of the distinct
    drawings, a share above `typical_share` that copies members is a leak, too. `other_drawings`, those that
    copy no member, are taken for distinct, which is cautious.
    """
    permutations = membership.PERMUTATIONS
    copied, random, sums = nearness > 0, np.random.default_rng(seed), np.zeros(permutations)
    for stratum in np.unique(strata[copied]):
        rows = strata == stratum
        near, members = nearness[rows & copied], int(member[rows].sum())
        # How many of the copied images are members, and then which of them.
        counts = random.hypergeometric(members, rows.sum() - members, len(near), permutations)
        order = random.random((permutations, len(near))).argsort(axis=1)
        sums += (order < counts[:, None]) @ near
    as_near = (sums >= nearness[member].sum() - 1e-9).sum()
    of_members = float((1 + as_near) / (1 + permutations))
    found = int((copied & member).sum())
    of_drawings = float(bdtrc(found - 1, found + other_drawings, typical_share)) if found else 1.0
    return min(1.0, 2 * min(of_members, of_drawings))
