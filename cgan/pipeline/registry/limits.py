"""The gate's limits on a generator by itself: on its metrics, on single classes, on how its drawings look,
and on what they give away.

A limit is checked at the pessimistic end of the number's 95 % interval, so that none passes by luck: shares
by Wilson's interval (resampling gives "all right" no width), distances by the bootstrap and coverage by the
jackknife of `quality.estimates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from cgan.attacks.attacker import MAX_PER_SIDE
from cgan.attacks.membership import AttackResult, non_members_needed
from cgan.evaluation import METRICS, Evaluation, Interval, Score
from cgan.params.sections import GateParams
from cgan.quality.class_shift import Shift
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import clearly_short, falls_short
from cgan.quality.metrics import wilson_interval
from cgan.quality.outliers import KIND_WORDS, Excess
from cgan.text import listed, percent
from cgan.verdict import Check

ValueAndInterval = tuple[float, Interval]


def score_of_drawings(score: Score) -> ValueAndInterval | None:
    """The metric of drawings; None where they have no value."""
    if score.value is None or score.interval is None:
        return None
    return score.value, score.interval


def score_of_real(score: Score) -> ValueAndInterval | None:
    """The metric of real images; None where they have no value."""
    if score.real is None or score.real_interval is None:
        return None
    return score.real, score.real_interval


def excess_over_real(score: Score) -> ValueAndInterval | None:
    """By how much the drawings' metric exceeds that of real images; None where it has no value."""
    if score.value is None:
        return None
    excess = Estimate.of_score(score) - Estimate.of_real(score)
    return excess.value, excess.interval


def ratio_to_real(score: Score) -> ValueAndInterval | None:
    """The drawings' metric as a fraction of that of real images; None where it has no value."""
    if score.value is None:
        return None
    ratio = Estimate.of_score(score) / Estimate.of_real(score)
    return ratio.value, ratio.interval


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit on a metric.

    `key`: of METRICS. `param`: the limit, of the section gate: a `min_…` or a `max_…`. `name`, `what`: of its
    check, for reports. `measure`: what of the metric has to keep the limit. `plus_real`: the limit is the
    param plus what real images get.
    """

    key: str
    param: str
    name: str
    what: str
    measure: Callable[[Score], ValueAndInterval | None] = score_of_drawings
    plus_real: bool = False

    def check(self, evaluation: Evaluation, limits: GateParams) -> Check | None:
        """The check of an evaluation; None where the metric has no value, as `not_measurable` explains."""
        score = evaluation.score(self.key)
        measured, limit = self.measure(score), getattr(limits, self.param)
        if measured is None:
            assert evaluation.not_measurable
            return None
        if self.plus_real:
            limit += score.real or 0.0
        return _check_of_interval(
            self.name,
            self.what,
            *measured,
            limit,
            at_most=self.param.startswith("max_"),
            is_share=METRICS[self.key].is_share,
        )


# To limit one more metric, write a row here and the param's default and range in `params/sections.py`.
LIMITS = (
    Limit(
        key="conditional_accuracy",
        param="min_conditional_accuracy",
        name="conditional_accuracy",
        what="drawings that show the class asked for, mean over classes",
    ),
    Limit(
        key="copies",
        param="max_copies_over_floor",
        name="copies",
        what="drawings closer to a training image than real images are, even if turned, zoomed or slanted",
        plus_real=True,
    ),
    Limit(
        key="conditional_accuracy",
        param="min_judge_accuracy",
        name="judge_accuracy",
        what="held-out images that the judge classifies correctly, mean over classes",
        measure=score_of_real,
    ),
    Limit(
        key="fid_judge",
        param="max_fid_over_floor",
        name="fid_over_floor",
        what="Fréchet distance above that of real images",
        measure=excess_over_real,
    ),
    Limit(
        key="coverage",
        param="min_coverage_of_floor",
        name="coverage_of_floor",
        what="coverage, as a fraction of that of real images",
        measure=ratio_to_real,
    ),
)


def check_limits(evaluation: Evaluation, limits: GateParams) -> list[Check]:
    """The checks of LIMITS, then those of single classes."""
    checks = []
    if evaluation.not_measurable:
        unmeasured = Check(
            name="measurable",
            what="what the drawings are worth, which is not measurable",
            value=0.0,
            limit=None,
            passed=False,
            why=evaluation.not_measurable,
        )
        checks.append(unmeasured)
    checks += [check for limit in LIMITS if (check := limit.check(evaluation, limits))]
    if not evaluation.not_measurable:
        checks.append(_worst_class_check(evaluation, limits.min_worst_class_accuracy))
    real_copies = evaluation.score("copies").real or 0.0
    checks.append(_class_copies_check(evaluation, real_copies + limits.max_copies_over_floor))
    least_diverse = _least_diverse_check(evaluation, limits.min_worst_class_diversity)
    return [*checks, least_diverse] if least_diverse else checks


def _check_of_interval(
    name: str,
    what: str,
    value: float,
    interval: Interval,
    limit: float,
    *,
    at_most: bool = False,
    is_share: bool = True,
) -> Check:
    """The check at the interval's pessimistic end."""
    low, high = interval
    if not at_most:
        low = max(low, 0.0)  # 2 standard deviations can reach below what a share can be
    return Check(
        name=name,
        what=what,
        value=value,
        limit=limit,
        passed=high <= limit if at_most else low >= limit,
        at_most=at_most,
        interval=(low, high),
        is_share=is_share,
    )


# -- Single classes ------------------------------------------------------------------------------------


def _worst_class_check(evaluation: Evaluation, limit: float) -> Check:
    """The check of the class with the lowest accuracy. A shortfall that chance explains among so many classes
    does not fail it (`falls_short`)."""
    confusion = torch.tensor(evaluation.confusion)
    right, total = confusion.diagonal(), confusion.sum(dim=1)
    short = falls_short(right, total, limit)
    # There may be more classes than drawings: one without any is not the worst.
    accuracy = (right / total).nan_to_num(nan=2.0)
    worst = int((accuracy - 2 * short.double()).argmin())  # those that fall short come first
    hits, drawings = int(right[worst]), int(total[worst])
    what = f"drawings of class {evaluation.names[worst]}, the worst, that show it"
    interval, passed = wilson_interval(hits, drawings), not bool(short.any())
    if passed and interval[0] < limit:
        what += f" (chance explains as much of one of {len(total)} classes)"
    return Check(
        name="worst_class_accuracy",
        what=what,
        value=hits / drawings,
        limit=limit,
        passed=passed,
        interval=interval,
    )


def _class_copies_check(evaluation: Evaluation, limit: float) -> Check:
    """The check of the class with the largest share of copies. Few drawings of a class are compared, and
    classes differ: only a share clearly above the limit fails."""
    counts = [(row.copies, row.compared) for row in evaluation.classes]
    copied, total = torch.tensor(counts).unbind(dim=1)
    over = clearly_short(total - copied, total, 1 - limit)
    share = (copied / total).nan_to_num(nan=-1.0)
    worst = int((share + 2 * over.double()).argmax())  # those clearly above the limit come first
    copies, compared = counts[worst]
    passed = not bool(over.any())
    found = (
        f"{copies} of {compared}; the limit is {percent(limit)}, and chance does not explain more"
    )
    return Check(
        name="class_copies",
        what=f"drawings of class {evaluation.names[worst]} that are such copies",
        value=copies / compared,
        limit=limit,
        passed=passed,
        at_most=True,
        interval=wilson_interval(copies, compared),
        why="" if passed else found,
    )


def _least_diverse_check(evaluation: Evaluation, limit: float) -> Check | None:
    """The check of the class whose interval has the lowest lower end; None where no class has a diversity."""
    measured = [
        (row.diversity_interval, row.diversity, name)
        for name, row in zip(evaluation.names, evaluation.classes, strict=True)
        if row.diversity is not None and row.diversity_interval is not None
    ]
    if not measured:
        return None
    interval, diversity, name = min(measured, key=lambda row: row[0])
    what = f"diversity of class {name}, the least diverse, as a fraction of that of real images"
    return _check_of_interval("diversity", what, diversity, interval, limit)


# -- How images look ------------------------------------------------------------------------------------


def shift_check(
    name: str, what: str, shifts: Iterable[Shift], limit: float, class_names: Sequence[str]
) -> Check:
    """No class may be further off than `limit` standard deviations."""
    of_class = dict[int, Shift]()  # the largest
    for shift in sorted(shifts, key=lambda shift: shift.deviations, reverse=True):
        of_class.setdefault(shift.label, shift)
    ranked = list(of_class.values())
    far = [
        f"class {class_names[shift.label]} is {shift.words} ({shift.deviations:.1f} standard deviations)"
        for shift in ranked
        if shift.deviations > limit
    ]
    why = f"{listed(far, 3)}; at most {limit:g}"
    return maximum_check(name, what, ranked[0].deviations, limit, why, is_share=False)


def outlier_check(found: Sequence[Excess], limit: float, class_names: Sequence[str]) -> Check:
    """The check that of no class more than the share `limit` of the drawings lies outside what real images
    do, beyond what these and chance explain; `found`: those that exceed most first."""
    far = []
    for excess in found:
        if excess.low > limit:
            whose = "all classes" if excess.label is None else f"class {class_names[excess.label]}"
            far.append(
                f"{percent(excess.share)} of the drawings of {whose} look like no training image of theirs, "
                f"{KIND_WORDS[excess.kind]} (of real images {percent(excess.real)})"
            )
    what = "drawings of a class that look like no real image of it, beyond what chance explains"
    value = max(0.0, found[0].low) if found else 0.0
    why = f"{listed(far, 3)}; at most {percent(limit)} more may"
    return maximum_check("outliers", what, value, limit, why)


def maximum_check(
    name: str, what: str, value: float, limit: float, why: str = "", *, is_share: bool = True
) -> Check:
    """The check of a value that an interval has been taken from already. `why`: for one above the limit."""
    passed = value <= limit
    return Check(
        name=name,
        what=what,
        value=value,
        limit=limit,
        passed=passed,
        at_most=True,
        why="" if passed else why,
        is_share=is_share,
    )


# -- What drawings give away ----------------------------------------------------------------------------


def membership_check(attack: AttackResult, limit: float) -> Check:
    """The attack's AUC is at most `limit`, by the upper end of its interval. Where the hold-out is too small
    to show that, the check fails, and says how many held-out images give 80 % power at a true AUC of 0.5."""
    (low, high), needed = attack.interval, non_members_needed(limit, attack.members)
    why = ""
    if low <= limit < high and (needed is None or attack.non_members < needed):
        more = f"beside {attack.members:,} training images no hold-out is large enough"
        if needed and needed <= MAX_PER_SIDE:
            more = f"{needed:,} would show it four times of five, if the drawings tell nothing"
        few = f"{attack.non_members:,} held-out images are too few"
        why = f"{few} to show that it is at most {limit:g}; {more}"
    return Check(
        name="membership_auc",
        what="how well drawings tell training images from held-out ones (AUC; 0.5 is chance)",
        value=attack.auc,
        limit=limit,
        passed=high <= limit,
        at_most=True,
        interval=attack.interval,
        why=why,
        is_share=False,
    )
