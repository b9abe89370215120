"""May this generator be served, and are today's data like the champion's? Decided from two evaluations, from
how drawings and data look, and from the limits: without a store, files or images.

Limits are checked at the pessimistic end of the number's 95 % interval, so that none passes by luck:
shares by Wilson's interval (the bootstrap gives "all right" no width), distances and coverage by the
bootstrap of `quality.estimates`. Against the champion, a difference counts when its interval is
clear of what nobody would notice. Data raise an alarm at the optimistic end, so that noise raises none:
docs/log.md has what clean and spoilt data get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from cgan.downstream.membership import Attack
from cgan.evaluation import METRICS, ClassScores, Evaluation, Interval, Score
from cgan.params.sections import GateParams
from cgan.pipeline.registry.membership import membership_check
from cgan.quality.class_shift import ENOUGH, Shift
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import clearly_short, critical_t, falls_short
from cgan.quality.metrics import mean_share, wilson_interval
from cgan.quality.outliers import SHOWN, Excess
from cgan.text import listed, percent
from cgan.verdict import Check, shown

# In one of these a challenger has to be clearly better: how near drawings come to real images, and how many
# of the real images they come near. Spoilt drawings improve neither.
IMPROVEMENT_METRICS = ("fid_judge", "coverage")
# The metrics in which a challenger is compared with the champion, and the loss in each that nobody would
# notice: half a drawing of a hundred, two of a hundred of a class, two of a hundred real images without a
# drawing near them. Two seeds differ by as much.
TOLERATED_LOSSES = {
    "fid_judge": 0.0,
    "conditional_accuracy": 0.005,
    "worst_class_accuracy": 0.02,
    "coverage": 0.02,
}

# The share of the images that would need another class: in simulations at most .03 % of good data are stopped
# (docs/log.md, "The mix of classes"). And the share of a class's agreement with labels that may be lost: good
# data lose none (docs/log/2026-11-29.md, "Data").
MAX_CLASS_MIX_CHANGE = 0.05
MAX_CLASS_AGREEMENT_DROP = 0.05


@dataclass(frozen=True)
class Appearance:
    """How drawings look beside real images, whatever the judge sees: of each class the column that is
    furthest off (`class_shift.largest_shifts`), and the shares that lie outside (`outliers.outliers`)."""

    shifts: Sequence[Shift]
    outliers: Sequence[Excess]


@dataclass(frozen=True)
class Decision:
    """`verdict`: `passed` or `blocked`. `reasons`: why it passed, or everything that blocks it. `checks`: of
    the limits; `comparison`: with the champion."""

    verdict: str
    reasons: list[str]
    checks: list[Check]
    comparison: list[Check]


def decide(
    challenger: Evaluation,
    champion: Evaluation | None,
    appearance: Appearance,
    limits: GateParams,
    attack: Attack | None = None,
) -> Decision:
    """May the challenger be served? `appearance`: of its drawings; `attack`: on them, where the
    gate limits that. Both were measured under the same conditions."""
    names = challenger.names
    what = "standard deviations by which a class's drawings differ from its training images"
    checks = [
        *check_limits(challenger, limits),
        shift_check("drawn_shift", what, appearance.shifts, limits.max_drawn_shift, names),
        outlier_check(appearance.outliers, limits.max_outliers, names),
    ]
    if attack and limits.max_membership_auc:
        checks.append(membership_check(attack, limits.max_membership_auc))
    comparison, improvements = list[Check](), list[str]()
    if champion:
        comparison, improvements = compare(challenger, champion, limits.against_champion)
        comparison += diversity_checks(challenger, champion, limits.min_diversity_of_champion)
    failed = [check.in_words() for check in (*checks, *comparison) if not check.passed]
    if failed:
        return Decision("blocked", failed, checks, comparison)
    met = "every limit is met, even at the pessimistic end of its interval"
    return Decision("passed", [*improvements, met], checks, comparison)


ValueAndInterval = tuple[float, Interval]


def score_of_drawings(score: Score) -> ValueAndInterval | None:
    """A metric; None where it has no value."""
    if score.value is None or score.interval is None:
        return None
    return score.value, score.interval


def score_of_real(score: Score) -> ValueAndInterval | None:
    """What real images get."""
    if score.real is None or score.real_interval is None:
        return None
    return score.real, score.real_interval


def excess_over_real(score: Score) -> ValueAndInterval | None:
    """By how much a metric exceeds what real images get."""
    if score.value is None:
        return None
    over = _estimate(score) - _estimate_of_real(score)
    return over.value, over.interval


def ratio_to_real(score: Score) -> ValueAndInterval | None:
    """A metric as a fraction of what real images get."""
    if score.value is None:
        return None
    part = _estimate(score) / _estimate_of_real(score)
    return part.value, part.interval


@dataclass(frozen=True)
class Limit:
    """A limit on a metric: `key` of METRICS, and `param` of the section gate, a `min_…` or a `max_…`.

    `name` and `what`: of its check, for reports. `measure`: what of the metric has to keep the limit.
    `plus_real`: the limit is the param plus what real images get.
    """

    key: str
    param: str
    name: str
    what: str
    measure: Callable[[Score], ValueAndInterval | None] = score_of_drawings
    plus_real: bool = False

    def check(self, evaluation: Evaluation, limits: GateParams) -> Check | None:
        """None where the metric has no value, which `not_measurable` explains."""
        score = evaluation.score(self.key)
        found, limit = self.measure(score), getattr(limits, self.param)
        if found is None:
            assert evaluation.not_measurable
            return None
        if self.plus_real:
            limit += score.real or 0.0
        return _check(self.name, self.what, *found, limit, self.param.startswith("max_"))


# To limit one more metric, write a row here and the param's default and range in `params/sections.py`.
LIMITS = (
    Limit(
        "conditional_accuracy",
        "min_conditional_accuracy",
        "conditional_accuracy",
        "drawings that show the class asked for, mean over classes",
    ),
    Limit(
        "copies",
        "max_copies_over_floor",
        "copies",
        "drawings closer to a training image than real images are, even if turned, zoomed or slanted",
        plus_real=True,
    ),
    Limit(
        "conditional_accuracy",
        "min_judge_accuracy",
        "judge_accuracy",
        "held-out images that the judge classifies correctly, mean over classes",
        score_of_real,
    ),
    Limit(
        "fid_judge",
        "max_fid_over_floor",
        "fid_over_floor",
        "Fréchet distance above that of real images",
        excess_over_real,
    ),
    Limit(
        "coverage",
        "min_coverage_of_floor",
        "coverage_of_floor",
        "coverage, as a fraction of that of real images",
        ratio_to_real,
    ),
)


def check_limits(evaluation: Evaluation, limits: GateParams) -> list[Check]:
    """Each limit, at the pessimistic end of the interval: those in LIMITS, then those of single classes."""
    checks = []
    if reason := evaluation.not_measurable:
        what = "what the drawings are worth, which is not measurable"
        checks.append(Check("measurable", what, 0.0, None, False, why=reason))
    checks += [check for row in LIMITS if (check := row.check(evaluation, limits))]
    if not evaluation.not_measurable:
        checks.append(_worst_class_check(evaluation, limits.min_worst_class_accuracy))
    most_copies = (evaluation.score("copies").real or 0.0) + limits.max_copies_over_floor
    checks.append(_class_copies_check(evaluation, most_copies))
    least_diverse = _least_diverse_check(evaluation, limits.min_worst_class_diversity)
    return [*checks, least_diverse] if least_diverse else checks


def _estimate(score: Score) -> Estimate:
    assert score.value is not None
    return Estimate.centred(score.value, score.replicates)


def _estimate_of_real(score: Score) -> Estimate:
    assert score.real is not None
    return Estimate.centred(score.real, score.real_replicates)


def _check(
    name: str, what: str, value: float, interval: Interval, limit: float, at_most: bool = False
) -> Check:
    low, high = interval
    if not at_most:
        low = max(low, 0.0)  # the bootstrap can go below what a share can be
    passed = high <= limit if at_most else low >= limit
    return Check(name, what, value, limit, passed, at_most, (low, high))


def _least_diverse_check(evaluation: Evaluation, limit: float) -> Check | None:
    """The check of the class whose interval has the lowest lower end; None where no class has a diversity."""
    lowest = None
    for name, row in zip(evaluation.names, evaluation.classes, strict=True):
        if row.diversity is None or row.diversity_interval is None:
            continue
        what = f"diversity of class {name}, the least diverse, as a fraction of that of real images"
        check = _check("diversity", what, row.diversity, row.diversity_interval, limit)
        if lowest is None or row.diversity_interval < lowest[0]:
            lowest = row.diversity_interval, check
    return lowest and lowest[1]


def _worst_class_check(evaluation: Evaluation, limit: float) -> Check:
    """The check of the class with the lowest accuracy. A shortfall that chance explains among so many classes
    does not fail it (`falls_short`)."""
    confusion = torch.tensor(evaluation.confusion)
    right, total = confusion.diagonal(), confusion.sum(dim=1)
    name, short = "worst_class_accuracy", falls_short(right, total, limit)
    # There may be more classes than drawings.
    worst = int(((right / total).nan_to_num(nan=2.0) - 2 * short.double()).argmin())
    hits, asked = int(right[worst]), int(total[worst])
    what = f"drawings of class {evaluation.names[worst]}, the worst, that show it"
    interval = wilson_interval(hits, asked)
    passed = not bool(short.any())
    if passed and interval[0] < limit:
        what += f" (chance explains as much of one of {len(total)} classes)"
    return Check(name, what, hits / asked, limit, passed, interval=interval)


def _class_copies_check(evaluation: Evaluation, limit: float) -> Check:
    """The check of the class with the largest share of copies. Few drawings of a class are compared, and
    classes differ: only a share clearly above the limit fails."""
    pairs = [(row.copies, row.compared) for row in evaluation.classes]
    copied, total = torch.tensor(pairs).unbind(dim=1)
    over = clearly_short(total - copied, total, 1 - limit)
    most = int(((copied / total).nan_to_num(nan=-1.0) + 2 * over.double()).argmax())
    count, compared = pairs[most]
    many = f"{count} of {compared}; the limit is {percent(limit)}, and chance does not explain more"
    what = f"drawings of class {evaluation.names[most]} that are such copies"
    passed = not bool(over.any())
    why, interval = "" if passed else many, wilson_interval(count, compared)
    return Check("class_copies", what, count / compared, limit, passed, True, interval, why)


def shift_check(
    name: str, what: str, shifts: Iterable[Shift], limit: float, names: Sequence[str]
) -> Check:
    """No class may be further off than `limit` standard deviations; `names` are those of the classes."""
    largest = dict[int, Shift]()  # of each class
    for shift in shifts:
        if shift.label not in largest or shift.deviations > largest[shift.label].deviations:
            largest[shift.label] = shift
    ranked = sorted(largest.values(), key=lambda shift: shift.deviations, reverse=True)
    far = [
        f"class {names[shift.label]} is {shift.words} ({shift.deviations:.1f} standard deviations)"
        for shift in ranked
        if shift.deviations > limit
    ]
    return _at_most(name, what, ranked[0].deviations, limit, f"{listed(far, 3)}; at most {limit:g}")


def outlier_check(found: Sequence[Excess], limit: float, names: Sequence[str]) -> Check:
    """The check that of no class more than the share `limit` of the drawings lies outside what real images
    do, beyond what these and chance explain; `found`: those that exceed most first."""
    far = [
        f"{percent(each.share)} of the drawings of "
        f"{'all classes' if each.label is None else f'class {names[each.label]}'} look like no training "
        f"image of theirs, {SHOWN[each.kind]} (of real images {percent(each.real)})"
        for each in found
        if each.low > limit
    ]
    what = "drawings of a class that look like no real image of it, beyond what chance explains"
    value = max(0.0, found[0].low) if found else 0.0
    why = f"{listed(far, 3)}; at most {percent(limit)} more may"
    return _at_most("outliers", what, value, limit, why)


def compare(
    challenger: Evaluation, champion: Evaluation, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The check of each metric's difference, by the same replicates; and in words what is clearly better.

    Nothing may be clearly worse, by more than TOLERATED_LOSSES allows; `against_champion` "better" asks for
    one of IMPROVEMENT_METRICS. The intervals are at 95 % for all metrics together (Bonferroni).
    """
    checks, improvements, gained = [], [], False
    if challenger.not_measurable:
        return [], []
    for name, tolerated in TOLERATED_LOSSES.items():
        metric = METRICS[name]
        new, old = (_estimate(each.score(name)) for each in (challenger, champion))
        difference, lower = new - old, metric.better == "lower"
        low, high = _joint_interval(difference, len(TOLERATED_LOSSES))
        better, worse = (high < 0, low > tolerated) if lower else (low > 0, high < -tolerated)
        words = "not clearly different from"
        if better or worse:
            words = "better than" if better else "worse than"
        what = f"{metric.name} {shown(name, new.value)}, {words} the champion's {shown(name, old.value)}"
        change, least, most = (shown(name, value) for value in (difference.value, low, high))
        why = f"difference {change}; between {least} and {most} (95 % for all metrics)"
        check = Check(name, what, difference.value, None, not worse, lower, (low, high), why)
        checks.append(check)
        if better:
            improvements.append(check.in_words())
            gained = gained or name in IMPROVEMENT_METRICS
    either = " or ".join(METRICS[name].name for name in IMPROVEMENT_METRICS)
    if against_champion == "better" and not gained:
        for row, check in enumerate(checks):
            if check.name in IMPROVEMENT_METRICS and check.passed:
                why = f"{check.why}; {either} has to be better by more than noise explains"
                checks[row] = replace(check, passed=False, why=why)
    return checks, improvements


def _joint_interval(estimate: Estimate, count: int) -> Interval:
    """The estimate's interval, at 95 % for `count` of them together (Bonferroni)."""
    replicates = estimate.replicates
    reach = critical_t(len(replicates) - 1, many=count) * float(replicates.std())
    return estimate.value - reach, estimate.value + reach


def diversity_checks(challenger: Evaluation, champion: Evaluation, least: float) -> list[Check]:
    """No class may clearly have less than the part `least` of the champion's diversity."""
    pairs = zip(challenger.names, challenger.classes, champion.classes, strict=True)
    classes = [
        (name, new_diversity / old_diversity)
        for name, new, old in pairs
        if (new_diversity := _diversity(new)) and (old_diversity := _diversity(old))
    ]
    checks = []
    for name, part in classes:
        low, high = _joint_interval(part, len(classes))
        what = f"diversity of class {name}, as a fraction of the champion's"
        found = part.value, least, high >= least, False, (low, high)
        checks.append(Check("diversity_of_champion", what, *found))
    return sorted(checks, key=lambda check: (check.passed, check.value))[:1]


def _diversity(row: ClassScores) -> Estimate | None:
    if row.diversity is None:
        return None
    return Estimate.centred(row.diversity, row.diversity_replicates)


# -- Today's data beside the champion's ----------------------------------------------------------------


def agreement_checks(
    confusion: Tensor,
    right: Tensor,
    total: Tensor,
    max_drop: float,
    names: list[str],
    owner: str = "the champion's",
) -> list[Check]:
    """How much less a champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell most, as a fraction of what it was.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `right` of `total`,
    int64 [classes]: what it was.
    """
    counts = confusion.sum(dim=1)
    columns = [column.tolist() for column in (confusion.diagonal(), counts, right, total)]
    # For each class: agreed, images, agreed then, images then.
    rows = list(zip(*columns, strict=True))
    large = [row for row in rows if row[1] >= ENOUGH and row[3]]
    if not large:
        return []
    now, now_between = mean_share([(agreed, images) for agreed, images, _, _ in large])
    then, then_between = mean_share([(agreed, images) for _, _, agreed, images in large])
    why = (
        f"{owner} judge agrees with {percent(now)} of the new labels, but agreed with "
        f"{percent(then)} of those of its own hold-out (means over the classes)"
    )
    losses, seen_as = [0.0], []
    for label, (agreed, images, agreed_then, images_then) in enumerate(rows):
        if images >= ENOUGH and agreed_then:
            most_now = wilson_interval(agreed, images)[1]
            least_then = wilson_interval(agreed_then, images_then)[0]
            losses.append(1 - most_now / least_then)
            if losses[-1] > MAX_CLASS_AGREEMENT_DROP:
                others = confusion[label].scatter(0, torch.tensor(label), 0)
                part = f"{percent(int(others.max()) / images, 0)} of the {images:,} images"
                seen_as.append(f"{names[int(others.argmax())]} in {part} labelled {names[label]}")
    what = f"labels that {owner} judge no longer agrees with, mean over classes"
    fallen = max(0.0, then_between[0] - now_between[1])
    of_one = f"labels of one class that {owner} judge no longer agrees with"
    sees = f"{owner} judge sees {', '.join(seen_as[:5])}"
    return [
        _at_most("label_agreement", what, fallen, max_drop, why),
        _at_most("class_agreement", of_one, max(losses), MAX_CLASS_AGREEMENT_DROP, sees),
    ]


def class_mix_check(counts: Tensor, past: Tensor, group_size: float = 1.0) -> Check:
    """How many images would need another class, less what chance explains: of counts [classes].
    `group_size`: images in a group. Groups are drawn whole, so the variance is as many times larger (Kish,
    Survey Sampling, 1965, 5.4)."""
    shares, past_shares = counts / counts.sum(), past / past.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + past) / (counts + past).sum()
    variance = pooled * (1 / counts.sum() + 1 / past.sum()) * group_size
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(shares)))  # 95 % for all classes (Bonferroni)
    beyond_chance = ((shares - past_shares).abs() - z * variance.sqrt()).clamp(min=0)
    value = float(beyond_chance.sum() / 2)  # one image that changes its class counts in two
    return _at_most(
        "class_mix", "images that would need another class", value, MAX_CLASS_MIX_CHANGE
    )


def _at_most(name: str, what: str, value: float, limit: float, why: str = "") -> Check:
    """`why` is for a value above the limit."""
    passed = value <= limit
    return Check(name, what, value, limit, passed, at_most=True, why="" if passed else why)
