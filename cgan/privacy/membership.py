"""Who was in the training data? What an attacker's scores of members and of others tell.

A member is an image, or a group of images, that was trained on; the others were held out at random. Under the
null hypothesis scores tell nothing: then within a stratum any choice of as many members is as likely as the
true one, so the tests permute who is a member within each.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cgan.base.report import Interval, Number
from cgan.data.arrays import IntArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FALSE_POSITIVE_RATE = 0.01  # the share of the non-members that are taken for members
LEVEL = 0.05  # of the test
STATISTICS = 2  # that it looks at (Bonferroni)
PERMUTATIONS = 4_000
POWER = 0.8  # by convention (Cohen, Statistical Power Analysis, 1988)
SUREST_SHARE = 0.1  # of the pairs of a member and a non-member, beside all of them


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The findings of an attack. `auc`: how often a member scores higher than a non-member, with its 95 %
    interval. `true_positive_rate`: the share of members found at `false_positive_rate`, at most
    FALSE_POSITIVE_RATE or, of fewer than 99 non-members, what the highest score of these gives; `chance`: the
    share that scores which tell nothing find at most in 19 of 20 cases. `p_value`: of the test that they tell
    nothing. `epsilon`: see `least_epsilon`."""

    auc: float
    interval: Interval
    true_positive_rate: float
    false_positive_rate: float
    chance: float
    p_value: float
    epsilon: float
    members: int
    non_members: int

    @property
    def auc_number(self) -> Number:
        """The AUC, for whoever shows it."""
        return Number(value=self.auc, interval=self.interval, kind="number")

    @property
    def leaks(self) -> bool:
        """Do the scores tell more than chance explains?"""
        return self.p_value < LEVEL

    @property
    def detectable_auc(self) -> float:
        """The true AUC that so many members and non-members show with probability POWER: the normal
        approximation of Mann and Whitney's test, one-sided."""
        m = self.members
        n = self.non_members
        normal = NormalDist().inv_cdf
        error = math.sqrt((m + n + 1) / (12 * m * n))
        return min(1.0, 0.5 + (normal(1 - LEVEL / STATISTICS) + normal(POWER)) * error)


def attack(scores: FloatArray, member: BoolArray, strata: IntArray, seed: int) -> Attack:
    """The attack by scores [N], of which those of `member` bool [N] are members'; `strata` int64 [N].

    Two statistics are tested: the sum of the members' ranks, which the AUC is made of, and how many members
    are found at the false positive rate, for a few copies hardly move the sum (Carlini et al., Membership
    Inference Attacks From First Principles, arXiv:2112.03570).
    """
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(scores)), -scores))  # the highest first, ties at random
    scores = scores[order]
    member = member[order]
    strata = strata[order]
    ascending = scores[::-1]
    ranks = (np.searchsorted(ascending, scores) + np.searchsorted(ascending, scores, "right")) / 2
    members, non_members = int(member.sum()), int((~member).sum())
    above = max(0, math.floor(FALSE_POSITIVE_RATE * (non_members + 1) + 1e-9) - 1)
    # The true members first, then permuted ones, of each stratum as many.
    many = np.tile(member, (1 + PERMUTATIONS, 1))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        many[1:, rows] = random.permuted(many[1:, rows], axis=1)
    sums = many.astype(np.float32) @ (2 * ranks / len(scores) - 1).astype(np.float32)
    # Those that score higher than the first non-member who is not among the `above`.
    found = ((~many).cumsum(axis=1, dtype=np.int32) > above).argmax(axis=1) - above
    # Equal sums of float32 may differ in their last bits. The true members are among those counted.
    smallest = min(float((each >= each[0]).mean()) for each in (sums.round(3), found))
    auc, interval = auc_with_interval(scores[member], scores[~member])
    return Attack(
        auc=auc,
        interval=interval,
        true_positive_rate=float(found[0]) / members,
        false_positive_rate=(above + 1) / (non_members + 1),
        chance=float(np.quantile(found[1:], 0.95)) / members,
        p_value=min(1.0, STATISTICS * smallest),
        epsilon=least_epsilon(scores, member, strata, random),
        members=members,
        non_members=non_members,
    )


def auc_with_interval(members: FloatArray, non_members: FloatArray) -> tuple[float, Interval]:
    """AUC, how often one of the `members` scores higher than one of the others, where ties count half. Its
    variance is DeLong's (Biometrics 44, 1988); its interval, computed on the scale of logits, stays within 0
    and 1."""
    both = np.sort(non_members), np.sort(members)
    wins, losses = (
        (np.searchsorted(others, each) + np.searchsorted(others, each, "right")) / (2 * len(others))
        for others, each in (both, both[::-1])
    )
    auc, smaller = float(wins.mean()), min(len(wins), len(losses))
    variance = sum(float(share.var(ddof=1)) / len(share) for share in (wins, losses))
    # An AUC of 0 or 1 has no spread and no logit: as if half of one in so many had gone the other way.
    half = 0.5 / smaller
    inside = min(max(auc, half), 1 - half)
    # The derivative of the logit is 1 / (AUC (1 - AUC)).
    error = max(math.sqrt(variance), half) / (inside * (1 - inside))
    reach = NormalDist().inv_cdf(0.975) * error
    middle = math.log(inside / (1 - inside))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - reach, middle + reach))
    return auc, (min(low, auc), max(high, auc))


def least_epsilon(
    scores: FloatArray, member: BoolArray, strata: IntArray, random: np.random.Generator
) -> float:
    """The least ε, with 95 % confidence, of differential privacy (of one image that is replaced by another,
    δ = 0) that a training with so much of a leak can have had; 0: nothing is shown.

    An audit by one training (Steinke et al., NeurIPS 2023): within a stratum each member is paired with a
    non-member, which of the two was trained on is a fair coin, and the attacker guesses that it was the one
    with the higher score. With ε, of r guesses no more are right than of r tosses of a coin that shows heads
    with probability e^ε / (1 + e^ε). The attacker guesses all, or only where the scores differ most.
    """
    from scipy.special import betaincinv

    pairs = []
    for stratum in np.unique(strata):
        sides = [random.permutation(scores[(strata == stratum) & s]) for s in (member, ~member)]
        count = min(map(len, sides))
        pairs.append(sides[0][:count] - sides[1][:count])
    differences = np.concatenate(pairs)
    surest = differences[np.argsort(-np.abs(differences))]
    share = 0.5
    for part in (1.0, SUREST_SHARE):
        guesses = surest[: math.ceil(part * len(surest))]
        right = int((guesses > 0).sum())
        if right:  # the lower end by Clopper and Pearson, of two
            share = max(share, betaincinv(right, len(guesses) - right + 1, 0.05 / 2))
    return float(math.log(share / (1 - share)))
