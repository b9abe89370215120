"""May this generator be served? Decided from two evaluations, from how the drawings look, and from the
limits: without a store, files or images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cgan.attacks.membership import AttackResult
from cgan.evaluation import Evaluation
from cgan.params.sections import GateParams
from cgan.pipeline.registry.comparison import compare, diversity_checks
from cgan.pipeline.registry.limits import (
    check_limits,
    membership_check,
    outlier_check,
    shift_check,
)
from cgan.quality.class_shift import Shift
from cgan.quality.outliers import Excess
from cgan.verdict import Check


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
    attack: AttackResult | None = None,
) -> Decision:
    """May the challenger be served? `appearance`: of its drawings; `attack`: on them, where the gate limits
    that. Challenger and champion were measured under the same conditions."""
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
    failures = [check.in_words() for check in (*checks, *comparison) if not check.passed]
    if failures:
        return Decision("blocked", failures, checks, comparison)
    met = "every limit is met, even at the pessimistic end of its interval"
    return Decision("passed", [*improvements, met], checks, comparison)
