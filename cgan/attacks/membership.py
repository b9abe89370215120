"""Who was in the training data? What an attacker's scores of members and of others tell.

A member is a training image; the others were held out at random. Of a group of images one stands for all.
The score says how much an image looks like a member. Under the null hypothesis the scores tell nothing: then
within a stratum, a class or a part of it, any choice of as many members is as likely as the true one, so the
test permutes who is a member within each stratum (the mix of the two sides may differ).

The AUC is an average over all members. To the few who are found, the true positive rate at a low false
positive rate matters more: Carlini et al., Membership Inference Attacks From First Principles
(arXiv:2112.03570).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cgan.report import Interval

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

FALSE_POSITIVE_RATE = 0.01  # the share of the non-members that are taken for members
MIN_NON_MEMBERS = math.ceil(1 / FALSE_POSITIVE_RATE)  # to have such a share
PERMUTATIONS = 4_000
PERMUTATION_BATCH = 500  # that are floats at once
# The highest scores, among which a few copies show: this share of all, and no fewer than so many.
TAIL_SHARE, MIN_TAIL_IMAGES = 0.01, 10
MIN_STRATUM_IMAGES = 20  # to know the spread of its scores
POWER = 0.8  # by convention (Cohen, Statistical Power Analysis, 1988)
Z_95 = NormalDist().inv_cdf(0.975)  # standard errors to each side of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack finds. `auc`: how often a member scores higher than a non-member of its stratum, with
    its 95 % interval; 0.5 is chance. `p_value`: of the test that the scores tell nothing.
    `true_positive_rate`: the share of members that are found at FALSE_POSITIVE_RATE; `chance`: the share that
    scores which tell nothing find at most in 19 of 20 cases. Both None with fewer than MIN_NON_MEMBERS
    non-members."""

    auc: float
    interval: Interval
    p_value: float
    true_positive_rate: float | None
    chance: float | None
    members: int
    non_members: int


def one_per_unit(units: IntArray, seed: int) -> IntArray:
    """A row of each unit at random, ascending: a person with five pictures counts once."""
    order = np.random.default_rng(seed).permutation(len(units))
    firsts = np.unique(units[order], return_index=True)[1]
    return np.sort(order[firsts])


def strata_of(labels: IntArray, group_sizes: IntArray) -> IntArray:
    """The stratum of each of N images: equal for those of one class and of groups of about one size."""
    powers_of_two = np.log2(group_sizes).astype(np.int64)
    strata: IntArray = labels * (powers_of_two.max(initial=0) + 1) + powers_of_two
    return strata


def standardised(scores: FloatArray, strata: IntArray) -> FloatArray:
    """Scores less the median of their stratum, divided by its median absolute deviation; in one of fewer than
    MIN_STRATUM_IMAGES images, by that of all. Membership plays no part in it, so it gives none away."""
    centred = scores.astype(np.float64)
    for stratum in np.unique(strata):
        centred[strata == stratum] -= np.median(scores[strata == stratum])

    def spread(values: FloatArray) -> float:
        return float(np.median(np.abs(values))) or 1.0

    overall = spread(centred)
    for stratum in np.unique(strata):
        rows = strata == stratum
        centred[rows] /= spread(centred[rows]) if rows.sum() >= MIN_STRATUM_IMAGES else overall
    return centred


def attack(scores: FloatArray, member: BoolArray, strata: IntArray, seed: int = 0) -> AttackResult:
    """The attack by scores [N], of which those of `member` bool [N] are members'."""
    values = standardised(scores, strata)
    permuted = permuted_members(member, strata, seed)
    auc, interval = auc_with_interval(values, member, strata)
    rate, chance = rate_and_chance(values, member, permuted)
    return AttackResult(
        auc=auc,
        interval=interval,
        p_value=p_value_of(values, member, permuted),
        true_positive_rate=rate,
        chance=chance,
        members=int(member.sum()),
        non_members=int((~member).sum()),
    )


def permuted_members(member: BoolArray, strata: IntArray, seed: int) -> BoolArray:
    """Who else could be a member: bool [PERMUTATIONS, N], of each stratum as many as in `member`."""
    random = np.random.default_rng(seed)
    permuted = np.empty((PERMUTATIONS, len(member)), bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        some_members = np.broadcast_to(member[rows], (PERMUTATIONS, len(rows)))
        permuted[:, rows] = random.permuted(some_members, axis=1)
    return permuted


def auc_with_interval(
    scores: FloatArray, member: BoolArray, strata: IntArray
) -> tuple[float, Interval]:
    """The AUC within strata and its 95 % interval. A stratum of one side alone, or whose scores are all the
    same, as those of a class without drawings are, tells nothing and is left out; without another it is 0.5
    and no limits.

    It is the mean of the strata's areas under the ROC curve, with the weights of van Elteren's test (Bulletin
    of the International Statistical Institute 37, 1960): so 0.5 is chance where the two sides have other
    class mixes and classes have other scores, too. Of each stratum the variance is DeLong's (Biometrics 44,
    1988). The interval is on the scale of logits, so that it ends before 0 and 1.
    """
    aucs, weights, variances, pairs = [], [], [], 0
    for stratum in np.unique(strata):
        within = strata == stratum
        members, non_members = (np.sort(scores[within & side]) for side in (member, ~member))
        if not len(members) or not len(non_members) or not np.ptp(scores[within]):
            continue
        # How often each member exceeds a non-member, and the other way round; ties count half.
        wins_of_members = _count_below(non_members, members) / len(non_members)
        losses_of_non_members = 1 - _count_below(members, non_members) / len(members)
        aucs.append(float(wins_of_members.mean()))
        weights.append(len(members) * len(non_members) / (len(members) + len(non_members) + 1))
        # One alone has no spread: by chance its share is uniform, of variance 1/12. Where both are alone it
        # is 0 or 1.
        variances.append(
            sum(
                float(share.var(ddof=1)) / len(share) if len(share) > 1 else 1 / 12
                for share in (wins_of_members, losses_of_non_members)
            )
            if within.sum() > 2
            else 1 / 4
        )
        pairs += min(len(members), len(non_members))
    if not aucs:
        return 0.5, (0.0, 1.0)
    auc, parts = float(np.average(aucs, weights=weights)), np.array(weights) / sum(weights)
    # An AUC of 0 or 1 has no spread and no logit: as if half of one in so many had gone the other way.
    half = 0.5 / pairs
    error, inside = max(math.sqrt(parts**2 @ variances), half), min(max(auc, half), 1 - half)
    # The derivative of the logit is 1 / (AUC (1 - AUC)).
    half_width, logit = Z_95 * error / (inside * (1 - inside)), math.log(inside / (1 - inside))
    low, high = (1 / (1 + math.exp(-end)) for end in (logit - half_width, logit + half_width))
    # Where so many pairs that share no image all go one way, of all pairs 0.025^(1/n) or more do (Clopper and
    # Pearson): .912 of n = 40.
    surely = 0.025 ** (1 / pairs)
    if auc in (0.0, 1.0):
        return (0.0, (0.0, 1 - surely)) if auc == 0 else (1.0, (surely, 1.0))
    return auc, (min(low, auc), max(high, auc))


def _count_below(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """How many of `ordered`, ascending, each value exceeds; ties count half."""
    left, right = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    below: FloatArray = (left + right) / 2
    return below


def rate_and_chance(
    scores: FloatArray, member: BoolArray, permuted: BoolArray
) -> tuple[float | None, float | None]:
    """`true_positive_rate` and `chance` of an `AttackResult`; chance is by the `permuted_members`.

    The threshold is one that another non-member exceeds with a probability of at most FALSE_POSITIVE_RATE:
    of n non-members k lie above it, and (k + 1) / (n + 1) is that probability.
    """
    non_members = int((~member).sum())
    if non_members < MIN_NON_MEMBERS:
        return None, None
    above = math.floor(FALSE_POSITIVE_RATE * (non_members + 1) + 1e-9) - 1

    def rate(member: BoolArray) -> float:
        threshold = -np.partition(-scores[~member], above)[above]
        return float((scores[member] > threshold).mean())

    return rate(member), float(np.quantile([*map(rate, permuted)], 0.95))


def detectable_auc(members: int, non_members: int, level: float) -> float:
    """The true AUC that so many members and non-members show with probability POWER: the normal approximation
    of Mann and Whitney's test, one-sided at `level`."""
    error = math.sqrt((members + non_members + 1) / (12 * members * non_members))
    normal = NormalDist().inv_cdf
    return min(1.0, 0.5 + (normal(1 - level) + normal(POWER)) * error)


def p_value_of(scores: FloatArray, member: BoolArray, permuted: BoolArray) -> float:
    """The p-value of the test that `standardised` scores tell nothing, by the `permuted_members`.

    Two statistics are tested, both one-sided: the sum of the members' ranks, and how many of the highest
    scores are of members, for a few copies hardly move the sum. The smaller of their p-values is compared
    with the smaller one of each permutation (min P: Westfall and Young, Resampling-Based Multiple Testing,
    1993).
    """
    # A statistic is the sum of its column over the members.
    weights = np.stack(_rank_weights(scores), axis=1)
    ends = range(PERMUTATION_BATCH, len(permuted), PERMUTATION_BATCH)
    batches = [member[None], *np.split(permuted, ends)]  # the true members first
    sums = np.concatenate([batch.astype(np.float32) @ weights for batch in batches])
    smaller = np.minimum(*map(_upper_p_values, sums.T))
    return float((smaller <= smaller[0]).mean())


def _rank_weights(scores: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much each image adds to the two statistics if it is a member: its rank in [-1, 1], and 1 if it is
    among the highest."""
    ordered = np.sort(scores)
    ranks = 2 * _count_below(ordered, scores) / len(scores) - 1
    tail = min(len(scores), max(MIN_TAIL_IMAGES, round(TAIL_SHARE * len(scores))))
    return ranks.astype(np.float32), (scores >= ordered[-tail]).astype(np.float32)


def _upper_p_values(values: NDArray[np.float32]) -> FloatArray:
    """For each value the share of all that are at least as large, itself among them."""
    rounded = values.round(3)  # equal sums of float32 may differ in their last bits
    p_values: FloatArray = 1 - np.searchsorted(np.sort(rounded), rounded, "left") / len(values)
    return p_values
