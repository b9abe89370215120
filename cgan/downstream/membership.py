"""Who was in the training data? What an attacker's scores of members and of others tell.

A member is a training image, or a group of them of which one stands for all; the others were held out. The
score says how much an image looks like a member. Under the null hypothesis nothing tells them apart: then
every way to call so many of the images members is as likely as the true one, which is what the test permutes
(within classes, for the two sides may have other mixes of these).

True positives at few false alarms are what matters to the few who are found: Carlini et al., Membership
Inference Attacks From First Principles (arXiv:2112.03570).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cgan.evaluation import Interval

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

FALSE_ALARMS = (0.01, 0.001)
LEVEL = 0.05  # of the test
PERMUTATIONS, REPLICATES = 4_000, 1_000
TAIL, LEAST_TAIL = (
    0.01,
    10,
)  # of all images, or so many: the most exposed, in which a few copies show
ENOUGH = 20  # images of a class, to know the spread of their scores
POWER = 0.8
NORMAL = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The share of members that are found at `false_alarms`, with its 95 % interval. `chance`: what is found
    at most, 19 times of 20, where nothing tells members from others. All None where the others are too few to
    show so few false alarms; `others_needed` would do."""

    false_alarms: float
    others_needed: int
    found: float | None = None
    interval: Interval | None = None
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack. `auc`: how often a member scores higher than another image, with its 95 % interval; 0.5 is
    chance. `p_value`: of the test that it tells nothing, adjusted for all scores that were tried together."""

    name: str
    auc: float
    interval: Interval
    p_value: float
    detections: tuple[Detection, ...]
    members: int
    others: int

    @property
    def leaks(self) -> bool:
        """Does it tell members from others? At most 5 % of those that tell nothing seem to, whatever was
        tried together."""
        return self.p_value < LEVEL

    @property
    def detectable_auc(self) -> float:
        """What this test finds four times of five."""
        return detectable_auc(self.members, self.others)


def one_per_unit(units: IntArray, seed: int) -> IntArray:
    """A row of each unit at random, ascending: a person with five pictures counts once."""
    order = np.random.default_rng(seed).permutation(len(units))
    firsts = np.unique(units[order], return_index=True)[1]
    return np.sort(order[firsts])


def standardised(scores: FloatArray, labels: IntArray) -> FloatArray:
    """Less the median of the class, by the median deviation from it; of a class with few images by that of
    all. The same for members and others, so it tells nothing by itself."""
    centred = scores.astype(np.float64)
    for label in np.unique(labels):
        centred[labels == label] -= np.median(scores[labels == label])

    def spread(values: FloatArray) -> float:
        return float(np.median(np.abs(values))) or 1.0

    overall = spread(centred)
    for label in np.unique(labels):
        rows = labels == label
        centred[rows] /= spread(centred[rows]) if rows.sum() >= ENOUGH else overall
    return centred


def attacks(
    scores: Mapping[str, FloatArray], member: BoolArray, labels: IntArray, seed: int = 0
) -> list[Attack]:
    """What each of the scores [N] tells, and whether any does: the p-values are adjusted for all of them.

    Of each score two things are tested: the ranks of all members (the AUC), and how many of the most exposed
    images are members, for a few copies hardly move the AUC. The smallest p-value is compared with the
    smallest of each permutation (Westfall and Young, Resampling-Based Multiple Testing, 1993), so that scores
    that say much the same cost little.
    """
    values = {name: standardised(each, labels) for name, each in scores.items()}
    adjusted = _adjusted_p_values([*values.values()], member, labels, seed)
    found = []
    for (name, each), p_value in zip(values.items(), adjusted, strict=True):
        members, others = each[member], each[~member]
        auc, interval = auc_with_interval(members, others)
        found.append(
            Attack(
                name=name,
                auc=auc,
                interval=interval,
                p_value=p_value,
                detections=tuple(detection(members, others, rate, seed) for rate in FALSE_ALARMS),
                members=len(members),
                others=len(others),
            )
        )
    return found


def auc_with_interval(members: FloatArray, others: FloatArray) -> tuple[float, Interval]:
    """The area under the ROC curve and its 95 % interval (DeLong et al., Biometrics 44, 1988), on the scale
    of logits, so that it ends before 0 and 1."""
    ordered_others, ordered = np.sort(others), np.sort(members)
    # How often each beats one of the other side; ties count half.
    of_members = _below(ordered_others, members) / len(others)
    of_others = 1 - _below(ordered, others) / len(members)
    auc = float(of_members.mean())
    variance = sum(
        float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25
        for part in (of_members, of_others)
    )
    # Where all members beat all others, as if half of one had not.
    least = 0.5 / min(len(members), len(others))
    inside = min(max(auc, least / 2), 1 - least / 2)
    reach = NORMAL * max(math.sqrt(variance), least / 2) / (inside * (1 - inside))
    middle = math.log(inside / (1 - inside))
    low, high = (1 / (1 + math.exp(-(middle + side * reach))) for side in (-1, 1))
    return auc, (min(low, auc), max(high, auc))


def _below(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """How many of `ordered` each value beats, ties counted half."""
    left, right = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    below: FloatArray = (left + right) / 2
    return below


def detection(
    members: FloatArray, others: FloatArray, false_alarms: float, seed: int = 0
) -> Detection:
    """With a threshold above which so many of the others lie at most."""
    needed = math.ceil(1 / false_alarms)
    if len(others) < needed:
        return Detection(false_alarms=false_alarms, others_needed=needed)
    random, both = np.random.default_rng(seed), np.concatenate([members, others])
    allowed = math.floor(false_alarms * len(others) + 1e-9)

    def shares(members: FloatArray, others: FloatArray) -> FloatArray:
        """[R, M] and [R, N] → [R]."""
        threshold = -np.partition(-others, allowed, axis=1)[:, allowed, None]
        found: FloatArray = (members > threshold).mean(axis=1)
        return found

    def resampled(values: FloatArray) -> FloatArray:
        return values[random.integers(len(values), size=(REPLICATES, len(values)))]

    drawn = shares(resampled(members), resampled(others))
    mixed = random.permuted(np.broadcast_to(both, (REPLICATES, len(both))), axis=1)
    by_chance = shares(mixed[:, : len(members)], mixed[:, len(members) :])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Detection(
        false_alarms=false_alarms,
        others_needed=needed,
        found=float(shares(members[None], others[None])[0]),
        interval=(float(low), float(high)),
        chance=float(np.quantile(by_chance, 0.95)),
    )


def detectable_auc(members: int, others: int) -> float:
    """The AUC that is found with POWER by so many of both: the normal approximation of Mann and Whitney's
    test, two-sided at 5 %."""
    error = math.sqrt((members + others + 1) / (12 * members * others))
    return min(1.0, 0.5 + (NORMAL + NormalDist().inv_cdf(POWER)) * error)


def others_needed(auc: float, members: int) -> int | None:
    """How many others show, at chance's AUC of 0.5, that it is below `auc`: the upper end of the interval.
    None: with so few members no number does."""
    left = ((auc - 0.5) / NORMAL) ** 2 * 12 * members - 1
    return math.ceil((members + 1) / left) if left > 0 else None


def _adjusted_p_values(
    scores: list[FloatArray], member: BoolArray, labels: IntArray, seed: int
) -> list[float]:
    """Of each score, the smaller one of its two statistics', adjusted for all of them."""
    weights = np.stack([weight for each in scores for weight in _rank_weights(each)], axis=1)
    random, drawn = np.random.default_rng(seed), [member[None]]
    flags = np.empty((PERMUTATIONS, len(member)), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        of_class = np.broadcast_to(member[rows], (PERMUTATIONS, len(rows)))
        flags[:, rows] = random.permuted(of_class, axis=1)
    drawn += np.split(flags, range(500, PERMUTATIONS, 500))
    sums = np.concatenate(
        [part.astype(np.float32) @ weights for part in drawn]
    )  # the true one first
    p_values = np.stack([_upper_p_values(column) for column in sums.T], axis=1)
    smallest = np.sort(p_values.min(axis=1))
    pairs = p_values[0].reshape(len(scores), 2).min(axis=1)
    return [float(np.searchsorted(smallest, p, "right") / len(smallest)) for p in pairs]


def _rank_weights(scores: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a member adds to each statistic: its rank in [-1, 1], and whether it is of the most exposed."""
    ordered = np.sort(scores)
    ranks = 2 * _below(ordered, scores) / len(scores) - 1
    most = min(len(scores), max(LEAST_TAIL, round(TAIL * len(scores))))
    return ranks.astype(np.float32), (scores >= ordered[-most]).astype(np.float32)


def _upper_p_values(values: NDArray[np.float32]) -> FloatArray:
    """The share of all that are at least as large as each."""
    rounded = values.round(3)
    p_values: FloatArray = 1 - np.searchsorted(np.sort(rounded), rounded, "left") / len(values)
    return p_values
