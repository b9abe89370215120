"""May this generator be served? Decided from two evaluations, from how the drawings look, and from the
limits: without a store, files or images."""

from __future__ import annotations

from dataclasses import dataclass

from cgan.evaluation import METRICS, Evaluation, Interval
from cgan.params.sections import GateParams
from cgan.pipeline.registry.limits import Drawings, check_limits
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import critical_t
from cgan.verdict import Check, in_digits

IMPROVEMENT = "fid_judge"  # in this a challenger has to be clearly better; spoilt drawings are not
# The metrics in which a challenger may not be clearly worse than the champion, and the loss in each that
# nobody would notice: half a drawing of a hundred. Two seeds differ by as much.
TOLERATED_LOSSES = {IMPROVEMENT: 0.0, "conditional_accuracy": 0.005}


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
            in_digits(value, metric.is_share)
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
            is_share=metric.is_share,
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
