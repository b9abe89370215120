"""May this generator be served? Numbers in, checks and reasons out; no store, no files.

Bars are checked at the pessimistic end of the number's 95 % interval, so that none passes by luck:
shares by Wilson's interval (the bootstrap gives "all right" no width), distances and coverage by the
bootstrap of `quality.comparison`. Against the champion, a difference counts when its interval is
clear of 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgan.params.sections import GateParams
from cgan.quality.class_shift import Shift
from cgan.quality.comparison import Estimate, Judged
from cgan.quality.metrics import Accuracy, wilson_interval
from cgan.quality.table import METRICS
from cgan.verdict import Check, Interval

COPIES_FLOOR = 0.01  # by its definition: nearer than 99 % of the held-out reals
MAIN = "fid_judge"
# By which a challenger is set beside the champion.
COMPARED = (MAIN, "conditional_accuracy", "worst_class_accuracy", "coverage")
AT_MOST = ("fid_over_floor", "copies")
WORDS = {
    "conditional_accuracy": "drawings that show the class asked for, mean over classes",
    "worst_class_accuracy": "drawings of {}, the worst class, that show it",
    "copies": "drawings closer to a training image than 99 % of reals",
    "judge_accuracy": "held-out images whose label the judge names, mean over classes",
    "fid_over_floor": "Fréchet distance, less that of real images",
    "coverage_of_floor": "coverage, as a part of what real images get",
    "different_drawings": "different drawings of {}, the least varied class",
    "drawn_shift": "standard deviations by which a class's drawings differ from its training images",
    "load_check": "the registered model draws every class in a process of its own, as its file does",
}


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.count, self.total)


def shifted(
    name: str, what: str, shifts: Iterable[Shift], limit: float, names: Sequence[str]
) -> Check:
    """No class may be further off than `limit` standard deviations; `names` are those of the classes."""
    by_class = {each.label: each for each in sorted(shifts, key=lambda each: each.deviations)}
    ranked = sorted(by_class.values(), key=lambda each: -each.deviations)
    value = ranked[0].deviations
    far = [
        f"class {names[each.label]} is {each.words} ({each.deviations:.1f} standard deviations)"
        for each in ranked
        if each.deviations > limit
    ]
    others = f", and {len(far) - 3} other classes" if len(far) > 3 else ""
    why = f"{', '.join(far[:3])}{others}; at most {limit:g}" if far else ""
    return Check(name, what, value, limit, not far, at_most=True, why=why)


def decide(checks: Sequence[Check], praise: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`passed` and what speaks for it, or `blocked` and all that speaks against it."""
    if failed := [check.in_words() for check in checks if not check.passed]:
        return "blocked", failed
    return "passed", [*praise, "every bar is reached, also at the pessimistic end of its interval"]


def compare(
    challenger: Judged, champion: Judged, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The difference of each metric, judged with the same replicates; and in words what is clearly better.

    Nothing may be clearly worse; `against_champion` "better" asks for a distance that is clearly lower.
    """
    checks, praise = [], []
    for name in COMPARED:
        metric, ours, theirs = METRICS[name], challenger.metrics[name], champion.metrics[name]
        difference, lower = ours - theirs, metric.better == "lower"
        low, high = difference.interval
        better, worse = (high < 0, low > 0) if lower else (low > 0, high < 0)
        words = "better than" if better else "worse than" if worse else "not clearly different from"
        what = f"{metric.name} {ours.value:.4f}, {words} the champion's {theirs.value:.4f}"
        passed = better or not (worse or (name == MAIN and against_champion == "better"))
        why = f"difference {difference.value:+.4f} (95 %: {low:+.4f} to {high:+.4f})"
        if not passed and not worse:
            why += "; it has to be better by more than noise explains"
        check = Check(name, what, difference.value, None, passed, lower, (low, high), why)
        checks.append(check)
        if better:
            praise.append(check.in_words())
    return checks, praise


def bars(
    limits: GateParams,
    judged: Judged,
    copies: Share | None = None,
    judge: Accuracy | None = None,
    different: Sequence[tuple[float, float] | None] = (),
    *,
    benefit_of_doubt: bool = False,
) -> list[Check]:
    """Each bar, at the pessimistic end of the interval, or at the optimistic one; without those of which
    nothing is given.

    `copies`: the drawings close to a training image. `judge`: how often the judge names a held-out label.
    `different`: how many different drawings each class has, and how many its real images get.
    """
    confusion = judged.accuracy.confusion
    right, asked = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    # There may be more classes than drawings.
    seen = [label for label, count in enumerate(asked) if count]
    worst = min(seen, key=lambda label: right[label] / asked[label])
    of_worst = Share(right[worst], asked[worst])
    measured: dict[str, tuple[Accuracy | Share | Estimate | None, float]] = {
        "conditional_accuracy": (judged.accuracy, limits.min_conditional_accuracy),
        "worst_class_accuracy": (of_worst, limits.min_worst_class_accuracy),
        "copies": (copies, COPIES_FLOOR + limits.max_copies_over_floor),
        "judge_accuracy": (judge, limits.min_judge_accuracy),
        "fid_over_floor": (judged.fid_over_floor, limits.max_fid_over_floor),
        "coverage_of_floor": (judged.coverage_of_floor, limits.min_coverage_of_floor),
    }
    checks = []
    for name, (found, limit) in measured.items():
        if found is None:
            continue
        what, at_most, (low, high) = WORDS[name].format(worst), name in AT_MOST, found.interval
        if not at_most:
            low = max(low, 0.0)  # the bootstrap can go below what a share can be
        end = high if at_most != benefit_of_doubt else low
        passed = end <= limit if at_most else end >= limit
        checks.append(Check(name, what, found.value, limit, passed, at_most, (low, high)))
    # A class of ten images has few pairs, so half of what its real images get is enough.
    varied = [
        (pair[0] - limit, pair[0], limit, label)
        for label, pair in enumerate(different)
        if pair
        for limit in [min(limits.min_different_drawings, pair[1] / 2)]
    ]
    if varied:
        spare, drawn, limit, label = min(varied)
        what = WORDS["different_drawings"].format(label)
        checks.append(Check("different_drawings", what, drawn, limit, spare >= 0))
    return checks
