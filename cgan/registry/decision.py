"""May this generator be served? Numbers in, checks and reasons out; no store, no files.

Limits are checked at the pessimistic end of the number's 95 % interval, so that none passes by luck:
shares by Wilson's interval (the bootstrap gives "all right" no width), distances and coverage by the
bootstrap of `quality.comparison`. Against the champion, a difference counts when its interval is
clear of what nobody would notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgan.errors import listed
from cgan.metric import METRICS
from cgan.params.sections import GateParams
from cgan.quality.class_shift import Shift, student
from cgan.quality.comparison import Estimate, Judged
from cgan.quality.likeness import Copies, Variety
from cgan.quality.metrics import Accuracy, wilson_interval
from cgan.verdict import Check, Interval, shown

MAIN = "fid_judge"
# By which a challenger is set beside the champion, and how much less nobody would notice: half a drawing of
# a hundred, two of a class, two real images without a drawing near them. Seeds differ by that, too.
COMPARED = {
    MAIN: 0.0,
    "conditional_accuracy": 0.005,
    "worst_class_accuracy": 0.02,
    "coverage": 0.02,
}

AT_MOST = ("copies", "fid_over_floor")
BARS = {
    "conditional_accuracy": "drawings that show the class asked for, mean over classes",
    "worst_class_accuracy": "drawings of class {}, the worst, that show it",
    "copies": "drawings closer to a training image than real images are, even if turned, zoomed or noisy",
    "judge_accuracy": "held-out images that the judge classifies correctly, mean over classes",
    "fid_over_floor": "Fréchet distance, less that of real images",
    "coverage_of_floor": "coverage, as a fraction of that of real images",
    "different_drawings": "different drawings of class {}, as a fraction of its different real images",
}


@dataclass(frozen=True)
class Share:
    """A part, with its 95 % interval."""

    value: float
    interval: Interval

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        return cls(count / total, wilson_interval(count, total))


def decide(checks: Sequence[Check], praise: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`passed` and what speaks for it, or `blocked` and all that speaks against it."""
    if failed := [check.in_words() for check in checks if not check.passed]:
        return "blocked", failed
    return "passed", [*praise, "every limit is met, even at the pessimistic end of its interval"]


def bars(
    limits: GateParams,
    judged: Judged,
    copies: Copies,
    judge: Accuracy,
    different: Sequence[Variety | None],
    names: Sequence[str],
) -> list[Check]:
    """Each limit, at the pessimistic end of the interval.

    `judge`: how often the judge names a held-out label. `different`: of each class; `names` of the classes.
    """
    confusion = judged.accuracy.confusion
    right, counts = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    # There may be more classes than drawings.
    seen = [label for label, count in enumerate(counts) if count]
    worst = min(seen, key=lambda label: right[label] / counts[label])
    near = Share.of(int(copies.closer.sum()), len(copies.closer))
    of_worst = Share.of(right[worst], counts[worst])
    measured: dict[str, tuple[Accuracy | Estimate | Share, float]] = {
        "conditional_accuracy": (judged.accuracy, limits.min_conditional_accuracy),
        "worst_class_accuracy": (of_worst, limits.min_worst_class_accuracy),
        "copies": (near, copies.floor + limits.max_copies_over_floor),
        "judge_accuracy": (judge, limits.min_judge_accuracy),
        "fid_over_floor": (judged.fid_over_floor, limits.max_fid_over_floor),
        "coverage_of_floor": (judged.coverage_of_floor, limits.min_coverage_of_floor),
    }
    named = dict.fromkeys(measured, names[worst])
    if parts := [(v.interval[0] / v.of_real, n, v) for n, v in enumerate(different) if v]:
        low, label, least = min(parts, key=lambda part: part[:2])
        part = Share(least.number / least.of_real, (low, least.interval[1] / least.of_real))
        measured["different_drawings"] = part, limits.min_different_of_real
        named["different_drawings"] = names[label]
    checks = []
    for name, (number, limit) in measured.items():
        (low, high), at_most = number.interval, name in AT_MOST
        if not at_most:
            low = max(low, 0.0)  # the bootstrap can go below what a share can be
        passed = high <= limit if at_most else low >= limit
        what = BARS[name].format(named[name])
        checks.append(Check(name, what, number.value, limit, passed, at_most, (low, high)))
    return checks


def shifted(
    name: str, what: str, shifts: Iterable[Shift], limit: float, names: Sequence[str]
) -> Check:
    """No class may be further off than `limit` standard deviations; `names` are those of the classes."""
    by_class = {shift.label: shift for shift in sorted(shifts, key=lambda shift: shift.deviations)}
    ranked = sorted(by_class.values(), key=lambda shift: -shift.deviations)
    far = [
        f"class {names[shift.label]} is {shift.words} ({shift.deviations:.1f} standard deviations)"
        for shift in ranked
        if shift.deviations > limit
    ]
    why = f"{listed(far, 3)}; at most {limit:g}" if far else ""
    return Check(name, what, ranked[0].deviations, limit, not far, at_most=True, why=why)


def compare(
    challenger: Judged, champion: Judged, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The difference of each metric, judged with the same replicates; and in words what is clearly better.

    Nothing may be clearly worse, by more than COMPARED tolerates; `against_champion` "better" asks for a
    distance that is clearly lower. The intervals are at 95 % for all metrics together (Bonferroni).
    """
    checks, praise = [], []
    for name, less in COMPARED.items():
        metric, ours, theirs = METRICS[name], challenger.metrics[name], champion.metrics[name]
        difference, lower = ours - theirs, metric.better == "lower"
        low, high = _between(difference, len(COMPARED))
        better, worse = (high < 0, low > less) if lower else (low > 0, high < -less)
        words = "better than" if better else "worse than" if worse else "not clearly different from"
        mine, its, change, least, most = (
            shown(name, value) for value in (ours.value, theirs.value, difference.value, low, high)
        )
        what = f"{metric.name} {mine}, {words} the champion's {its}"
        passed = better or not (worse or (name == MAIN and against_champion == "better"))
        why = f"difference {change} (95 % for all: {least} to {most})"
        if not passed and not worse:
            why += "; it has to be better by more than noise explains"
        check = Check(name, what, difference.value, None, passed, lower, (low, high), why)
        checks.append(check)
        if better:
            praise.append(check.in_words())
    return checks, praise


def _between(estimate: Estimate, many: int) -> Interval:
    """Its interval, at 95 % for so many together."""
    replicates = estimate.replicates
    reach = student(many, float(len(replicates) - 1)) * float(replicates.std())
    return estimate.value - reach, estimate.value + reach


def as_varied(
    challenger: Sequence[Variety | None],
    champion: Sequence[Variety | None],
    least: float,
    names: Sequence[str],
) -> list[Check]:
    """No class may clearly have less than the part `least` of the champion's different drawings."""
    both = zip(names, challenger, champion, strict=False)
    classes = [(name, ours, its) for name, ours, its in both if ours and its]
    checks = []
    for name, ours, its in classes:
        scaled = Estimate(least * ours.same.value, least * ours.same.replicates)
        fewer = _between(scaled - its.same, len(classes))[0] > 0
        what = f"different drawings of class {name}, as a fraction of the champion's"
        why = f"{ours.number:.0f}, the champion has {its.number:.0f}" if fewer else ""
        part = ours.number / its.number
        checks.append(Check("different_of_champion", what, part, least, not fewer, why=why))
    return sorted(checks, key=lambda check: (check.passed, check.value))[:1]
