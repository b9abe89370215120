"""May this generator be served? Decided from two evaluations, from how the drawings look, and from the
limits: without a store, files or images.

A limit is checked at the pessimistic end of the number's 95 % interval, so that none passes by luck: shares
by Wilson's interval (resampling gives "all right" no width), distances by the bootstrap of
`quality.estimates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cgan.evaluation import Evaluation
from cgan.params.sections import GateParams
from cgan.proportions import wilson_interval
from cgan.quality.class_shift import Shift
from cgan.quality.conditions import METRICS
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import critical_t, falls_short
from cgan.quality.outliers import KIND_WORDS, Excess
from cgan.report import Interval
from cgan.text import listed, percent
from cgan.verdict import Check, in_digits

IMPROVEMENT = "fid_judge"  # in this a challenger has to be clearly better; spoilt drawings are not
# The metrics in which a challenger may not be clearly worse than the champion, and the loss in each that
# nobody would notice: half a drawing of a hundred. Two seeds differ by as much.
TOLERATED_LOSSES = {IMPROVEMENT: 0.0, "conditional_accuracy": 0.005}


@dataclass(frozen=True)
class Drawings:
    """A generator's drawings, measured: their evaluation; of each class the column that is furthest from its
    training images (`class_shift.largest_shifts`); and the shares that look like no real image, those that
    exceed most first (`outliers.outliers`)."""

    evaluation: Evaluation
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


def decide(drawings: Drawings, champion: Evaluation | None, limits: GateParams) -> Decision:
    """May the challenger be served? Its `drawings` and those of the champion were measured under the same
    conditions."""
    checks = check_limits(drawings, limits)
    comparison, improvements = list[Check](), list[str]()
    if champion and not drawings.evaluation.not_measurable:
        comparison, improvements = compare(drawings.evaluation, champion, limits.against_champion)
    failures = [check.in_words() for check in (*checks, *comparison) if not check.passed]
    if failures:
        return Decision("blocked", failures, checks, comparison)
    met = "every limit is met, even at the pessimistic end of its interval"
    return Decision("passed", [*improvements, met], checks, comparison)


# -- Limits ------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """A value with its interval, whose pessimistic end has to keep the limit, unless `passed` says whether it
    does. `note`: which class has it; `why`: the reason, where a failure needs another one."""

    value: float
    interval: Interval | None = None
    passed: bool | None = None
    note: str = ""
    why: str = ""


@dataclass(frozen=True)
class Limit:
    """A check. `param`: its limit in the section gate, a `min_…` or a `max_…`. `what`: a noun phrase for what
    is measured. `measure` gets the limit, too, and returns None where there is no value."""

    param: str
    what: str
    measure: Callable[[Drawings, float], Finding | None]
    is_share: bool = True

    def check(self, drawings: Drawings, limits: GateParams) -> Check | None:
        limit, at_most = getattr(limits, self.param), self.param.startswith("max_")
        finding = self.measure(drawings, limit)
        if finding is None:
            return None
        low, high = finding.interval or (finding.value, finding.value)
        low = low if at_most else max(low, 0.0)
        passed = finding.passed
        if passed is None:
            passed = high <= limit if at_most else low >= limit
        return Check(
            name=self.param[len("min_") :],
            what=f"{self.what} ({finding.note})" if finding.note else self.what,
            value=finding.value,
            limit=limit,
            passed=passed,
            at_most=at_most,
            interval=(low, high) if finding.interval else None,
            why="" if passed else finding.why,
            is_share=self.is_share,
        )


def check_limits(drawings: Drawings, limits: GateParams) -> list[Check]:
    """The checks of all LIMITS that have a value."""
    checks = (limit.check(drawings, limits) for limit in LIMITS)
    return [check for check in checks if check]


def _judge_accuracy(drawings: Drawings, _: float) -> Finding:
    """It fails, too, where the judge may be no better than one that guesses."""
    evaluation = drawings.evaluation
    score, reason = evaluation.score("conditional_accuracy"), evaluation.not_measurable
    passed = False if reason else None
    return Finding(score.real or 0.0, score.real_interval, passed, why=reason)


def _accuracy(drawings: Drawings, _: float) -> Finding | None:
    score = drawings.evaluation.score("conditional_accuracy")
    return None if score.value is None else Finding(score.value, score.interval)


def _worst_class_accuracy(drawings: Drawings, limit: float) -> Finding | None:
    """Of the class with the lowest accuracy. A shortfall that chance explains among so many classes does not
    fail it (`falls_short`)."""
    evaluation = drawings.evaluation
    if evaluation.not_measurable:
        return None
    confusion = torch.tensor(evaluation.confusion)
    right, total = confusion.diagonal(), confusion.sum(dim=1)
    short = falls_short(right, total, limit)
    # There may be more classes than drawings: one without any is not the worst.
    accuracy = (right / total).nan_to_num(nan=2.0)
    worst = int((accuracy - 2 * short.double()).argmin())  # those that fall short come first
    hits, asked = int(right[worst]), int(total[worst])
    interval, passed = wilson_interval(hits, asked), not bool(short.any())
    note = f"class {evaluation.names[worst]}"
    if passed and interval[0] < limit:
        note += f"; chance explains as much of one of {len(total)} classes"
    return Finding(hits / asked, interval, passed, note)


def _copies(drawings: Drawings, limit: float) -> Finding | None:
    """Of all drawings. Of a class few are compared, and classes differ: it fails by a share that is clearly
    above the limit."""
    evaluation = drawings.evaluation
    score = evaluation.score("copies")
    if score.value is None or score.interval is None:
        return None
    real = score.real or 0.0
    low, high = score.interval
    of_all = Finding(score.value - real, (low - real, high - real))
    copied, compared = torch.tensor(
        [(row.copies, row.compared) for row in evaluation.classes]
    ).unbind(dim=1)
    over = falls_short(compared - copied, compared, 1 - limit - real)
    if high - real > limit or not over.any():
        return of_all
    share = (copied / compared).where(over, 0.0)
    worst = int(share.argmax())
    why = (
        f"of class {evaluation.names[worst]} {copied[worst]} of {compared[worst]}, of real images "
        f"{percent(real)}; at most {percent(limit)} more may, and chance does not explain it"
    )
    return of_all._replace(passed=False, why=why)


def _distance(drawings: Drawings, _: float) -> Finding | None:
    score = drawings.evaluation.score("fid_judge")
    if score.value is None:
        return None
    excess = Estimate.of_score(score) - Estimate.of_real(score)
    return Finding(excess.value, excess.interval)


def _least_diversity(drawings: Drawings, _: float) -> Finding | None:
    """Of the class whose interval has the lowest lower end."""
    evaluation = drawings.evaluation
    measured = [
        (row.diversity_interval, row.diversity, name)
        for name, row in zip(evaluation.names, evaluation.classes, strict=True)
        if row.diversity is not None and row.diversity_interval is not None
    ]
    if not measured:
        return None
    interval, diversity, name = min(measured)
    return Finding(diversity, interval, note=f"class {name}")


def _shift(drawings: Drawings, limit: float) -> Finding:
    return shift_finding(drawings.shifts, limit, drawings.evaluation.names)


def shift_finding(shifts: Iterable[Shift], limit: float, class_names: Sequence[str]) -> Finding:
    """The largest shift; why: the three classes that are furthest off."""
    of_class = dict[int, Shift]()  # the largest
    for shift in sorted(shifts, key=lambda shift: shift.deviations, reverse=True):
        of_class.setdefault(shift.label, shift)
    far = [
        f"class {class_names[shift.label]} differs in {shift.words} ({shift.deviations:.1f} deviations)"
        for shift in of_class.values()
        if shift.deviations > limit
    ]
    largest = max(shift.deviations for shift in of_class.values())
    return Finding(largest, why=f"{listed(far, 3)}; at most {limit:g}")


def _outliers(drawings: Drawings, limit: float) -> Finding:
    far = []
    for excess in drawings.outliers:
        if excess.low > limit:
            of = "all classes"
            if excess.label is not None:
                of = f"class {drawings.evaluation.names[excess.label]}"
            far.append(
                f"{percent(excess.share)} of the drawings of {of} look like no training image of theirs, "
                f"{KIND_WORDS[excess.kind]} (of real images {percent(excess.real)})"
            )
    largest = max((excess.low for excess in drawings.outliers), default=0.0)
    return Finding(max(0.0, largest), why=f"{listed(far, 3)}; at most {percent(limit)} more may")


# To limit one more number, write a row here, and the param's default and range in `params/sections.py`.
LIMITS = (
    Limit(
        "min_judge_accuracy",
        "held-out images that the judge classifies correctly, mean over classes",
        _judge_accuracy,
    ),
    Limit(
        "min_conditional_accuracy",
        "drawings that show the class asked for, mean over classes",
        _accuracy,
    ),
    Limit(
        "min_worst_class_accuracy",
        "drawings of the worst class that show it",
        _worst_class_accuracy,
    ),
    Limit(
        "max_copies_over_floor",
        "near copies of training images, beyond the share among unseen real images",
        _copies,
    ),
    Limit(
        "max_fid_over_floor",
        "Fréchet distance above that of real images",
        _distance,
        is_share=False,
    ),
    Limit(
        "min_worst_class_diversity",
        "diversity of the least diverse class, as a fraction of that of real images",
        _least_diversity,
    ),
    Limit(
        "max_drawn_shift",
        "standard deviations by which a class's drawings differ from its training images",
        _shift,
        is_share=False,
    ),
    Limit(
        "max_outliers",
        "drawings of a class that look like no real image of it, beyond what chance explains",
        _outliers,
    ),
)


# -- Beside the champion -----------------------------------------------------------------------------


def compare(
    challenger: Evaluation, champion: Evaluation, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The check of each of TOLERATED_LOSSES; and in words what is clearly better.

    None may be clearly worse, by more than the loss; `against_champion` "better" asks for a better
    IMPROVEMENT. The intervals are at 95 % for all together.
    """
    checks, improvements = [], []
    for key, tolerated in TOLERATED_LOSSES.items():
        metric = METRICS[key]
        new, old = (Estimate.of_score(each.score(key)) for each in (challenger, champion))
        change = new - old
        low, high = interval = _joint_interval(change)
        least_gain, most_gain = (-high, -low) if metric.better == "lower" else (low, high)
        is_better, is_worse = least_gain > 0, most_gain < -tolerated
        passed = not is_worse
        if key == IMPROVEMENT and against_champion == "better":
            passed = is_better
        verdict = "not clearly different from"
        if is_better or is_worse:
            verdict = "better than" if is_better else "worse than"
        new_words, old_words, difference, lowest, highest = (
            in_digits(value, metric.kind == "share")
            for value in (new.value, old.value, change.value, low, high)
        )
        check = Check(
            name=key,
            what=f"{metric.name} {new_words}, {verdict} the champion's {old_words}",
            value=change.value,
            limit=None,
            passed=passed,
            at_most=metric.better == "lower",
            interval=interval,
            why=f"difference {difference}; between {lowest} and {highest} (95 % for both metrics)",
            is_share=metric.kind == "share",
        )
        checks.append(check)
        if is_better:
            improvements.append(check.in_words())
    return checks, improvements


def _joint_interval(change: Estimate) -> Interval:
    """At 95 % for all TOLERATED_LOSSES together (Bonferroni)."""
    freedom, deviation = len(change.replicates) - 1, float(change.replicates.std())
    reach = critical_t(freedom, comparisons=len(TOLERATED_LOSSES)) * deviation
    return change.value - reach, change.value + reach
