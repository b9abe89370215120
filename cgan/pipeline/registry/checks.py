"""The gate's table: each check is a row, which measures a number and holds it against a limit.

A limit stops what is clearly beyond it: but for diversity, with all of a 95 % interval. So it stops no good
generator for the noise of few images; and noise makes none champion, as that takes a clear difference.

To check one more number, write its function and a row of `ROWS`; where it has a param, its default and range
in `params/sections.py`. docs/benchmarks.md says what each row alone catches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch

from cgan.base.report import CANNOT_TELL, Interval, Kind, Number, Report, Table, as_text
from cgan.base.text import listed, percent
from cgan.params.sections import GateParams
from cgan.pipeline.registry.measurements import DataComparison, DrawingMeasurements
from cgan.quality.intervals import Estimate, critical_t
from cgan.quality.outliers import Excess, excesses
from cgan.quality.proportions import joint_z

MAX_CLASS_LOSS = 0.25  # of a class's share of the images


class Finding(NamedTuple):
    """A measured value. `interval`: all of it has to be beyond the limit, unless `passed` says what is
    decided, and `inconclusive` that nothing can be told. `note`: which class has the value, or what it stands
    beside; `why`: a failure in words, where value and limit say too little."""

    value: float | None
    interval: Interval | None = None
    passed: bool | None = None
    inconclusive: bool = False
    note: str = ""
    why: str = ""
    kind: Kind = "share"


# -- Measurements of the rows ------------------------------------------------------------------------


def largest_shift(found: DrawingMeasurements | DataComparison, limit: float) -> Finding | None:
    """The class that is furthest off."""
    if not found.shifts:
        return None
    names = found.class_names
    shifts = [
        (off, f"class {names[label]} differs in {words} ({off:.1f} deviations)")
        for label, off, words in found.shifts
    ]
    return _largest(shifts, limit, "number")


def most_outliers(found: DrawingMeasurements | DataComparison, limit: float) -> Finding | None:
    return _largest_excess(found, found.outliers, limit) if found.shifts else None


def most_copies(drawings: DrawingMeasurements, limit: float) -> Finding:
    classes = drawings.evaluation.classes
    counts = torch.tensor([(row.copies, row.compared) for row in classes])
    real = torch.tensor([(row.real_copies, row.real_compared) for row in classes])
    return _largest_excess(drawings, excesses(counts, real), limit)


def _largest_excess(
    found: DrawingMeasurements | DataComparison, measured: Iterable[Excess], limit: float
) -> Finding:
    """The largest excess, of all classes together or of one."""
    parts = []
    for excess in measured:
        whose = "all classes"
        if excess.label is not None:
            whose = f"class {found.class_names[excess.label]}"
        words = f"{percent(excess.share)} of the {found.images} of {whose}"
        parts.append((excess.low, f"{words} (of real images {percent(excess.real)})"))
    return _largest(parts, limit)


def _largest(found: list[tuple[float, str]], limit: float, kind: Kind = "share") -> Finding:
    """The largest of values, each with its words; why: the three largest above the limit, in their words."""
    ordered = sorted(found, reverse=True)
    far = [words for value, words in ordered if value > limit]
    why = f"{listed(far, 3)}; at most {as_text(limit, kind)}" if far else ""
    return Finding(max([0.0, *(value for value, _ in ordered)]), why=why, kind=kind)


def class_loss(data: DataComparison, limit: float) -> Finding:
    """The largest part of its share of the images that a class has lost, less what chance explains. Groups
    are drawn whole, so the variance is as many times larger (Kish, Survey Sampling, 1965, 5.4)."""
    counts, before = data.counts, data.kept.looks.counts
    shares, shares_before = counts / counts.sum(), before / before.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + before) / (counts + before).sum()
    variance = pooled * (1 / counts.sum() + 1 / before.sum()) * data.group_size
    certain = shares_before - shares - joint_z(len(shares)) * variance.sqrt()
    lost = (certain / shares_before).nan_to_num(nan=0.0).tolist()
    parts = zip(data.class_names, lost, shares.tolist(), shares_before.tolist(), strict=True)
    found = [
        (
            part,
            f"class {name} has {percent(now)} of the images, {percent(then)} of {data.kept.owner}",
        )
        for name, part, now, then in parts
    ]
    return _largest(found, limit)


def relative_accuracy(drawings: DrawingMeasurements, limit: float) -> Finding:
    """The mean over classes, as a part of what real images get. It fails, too, for a class that clearly falls
    short of its real images, and where the judge cannot tell."""
    evaluation = drawings.evaluation
    score = evaluation.score("conditional_accuracy")
    if evaluation.judge_weakness or not score.value or not score.real or not score.interval:
        why = f"the judge {CANNOT_TELL}: {evaluation.judge_weakness}"
        return Finding(score.value, passed=False, inconclusive=True, why=why)
    low, high = score.interval
    of_all = Finding(
        score.value / score.real,
        (low / score.real, high / score.real),
        note=f"({percent(score.value)}, real images {percent(score.real)})",
    )
    short = evaluation.classes_below_real(limit)
    if not short:
        return of_all
    rows = ((evaluation.names[label], evaluation.classes[label]) for label in short)
    classes = [
        f"of class {name} the judge sees {percent(row.accuracy or 0)} right, of its real images "
        f"{percent(row.real_accuracy or 0)}"
        for name, row in rows
    ]
    return of_all._replace(passed=False, why=listed(classes, 3))


def worst_diversity(drawings: DrawingMeasurements, limit: float) -> Finding | None:
    """The diversity of the class that has least. Its value decides: noise is a tenth of what repeats cost."""
    measured = [
        (row.diversity, row.diversity_interval, name)
        for name, row in zip(drawings.class_names, drawings.evaluation.classes, strict=True)
        if row.diversity is not None
    ]
    if not measured:
        return None
    value, interval, name = min(measured)
    return Finding(value, interval, value >= limit, note=f"(class {name})", kind="number")


def excess_distance(drawings: DrawingMeasurements, _: float) -> Finding | None:
    score = drawings.evaluation.score("fid_judge")
    if score.value is None:
        return None
    drawn = Estimate.restored(score.value, score.deviations)
    excess = drawn - Estimate.restored(score.real, score.real_deviations)
    return Finding(excess.value, excess.interval, kind="number")


def change(
    key: str, tolerated: float, drawings: DrawingMeasurements, limit: str | None
) -> Finding | None:
    """The change of a metric from the champion's value. It may not be clearly worse, by more than
    `tolerated`; "better" asks for a better one. The interval is at 95 % for both metrics (Bonferroni)."""
    if drawings.champion is None:
        return None
    score = drawings.evaluation.score(key)
    scores = score, drawings.champion.score(key)
    new, old = (Estimate.restored(each.value, each.deviations) for each in scores)
    difference = new - old
    t = critical_t(len(difference.replicates) - 1, comparisons=2)
    reach = t * float(difference.replicates.std())
    low, high = difference.value - reach, difference.value + reach
    least_gain, most_gain = (-high, -low) if score.better == "lower" else (low, high)
    is_better, is_worse = least_gain > 0, most_gain < -tolerated
    verdict = "not clearly different from"
    if is_better or is_worse:
        verdict = "better than" if is_better else "worse than"
    kind: Kind = "points" if score.kind == "share" else "difference"
    now, before = (as_text(each.value, score.kind, 2) for each in (new, old))
    by, least, most = (as_text(each, kind, 2) for each in (difference.value, low, high))
    return Finding(
        difference.value,
        (low, high),
        is_better if limit == "better" else not is_worse,
        not (is_better or is_worse),
        f"{now}, {verdict} the champion's {before}",
        f"difference {by}; between {least} and {most} (95 % for both metrics)",
        kind,
    )


# -- The table ---------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A check of the gate. `limit`: the name of its param in the section gate, a `min_…` or a maximum; a
    number; or None. `what`: a noun phrase for what is measured. `measure` gets what the group is about, and
    the limit; None: there is no value."""

    name: str
    limit: str | float | None
    what: str
    measure: Callable[[Any, Any], Finding | None]


# Groups of rows: the headings of their tables.
DATA_GROUP = "Today's data"  # of a `DataComparison`
LIMITS_GROUP = "Limits"  # of `DrawingMeasurements`
CHAMPION_GROUP = "Beside the champion"  # of `DrawingMeasurements`, too
# fmt: off
DATA_ROWS = (
    Row("class_shift", "max_class_shift", "deviations by which a class's new images differ", largest_shift),
    Row("data_outliers", "max_outliers", "new images like none before", most_outliers),
    Row("class_loss", MAX_CLASS_LOSS, "part of its share that a class has lost", class_loss),
)
LIMIT_ROWS = (
    Row("outliers", "max_outliers", "drawings that are like no real image", most_outliers),
    Row("drawn_shift", "max_drawn_shift", "deviations by which a class's drawings differ", largest_shift),
    Row("relative_accuracy", "min_relative_accuracy", "accuracy, as part of real images'", relative_accuracy),
    Row("copies_over_floor", "max_copies_over_floor", "near copies, beyond real images'", most_copies),
    Row("worst_class_diversity", "min_worst_class_diversity", "diversity, 1 as real images", worst_diversity),
    Row("fid_over_floor", "max_fid_over_floor", "Fréchet distance, less real images'", excess_distance),
)
CHAMPION_ROWS = (
    Row("fid_judge", "against_champion", "Fréchet distance", partial(change, "fid_judge", 0.0)),
    # Half a drawing of a hundred nobody would notice, and two seeds differ by as much.
    Row("conditional_accuracy", None, "conditional accuracy", partial(change, "conditional_accuracy", 0.005)),
)
# fmt: on
ROWS = {DATA_GROUP: DATA_ROWS, LIMITS_GROUP: LIMIT_ROWS, CHAMPION_GROUP: CHAMPION_ROWS}


@dataclass(frozen=True, kw_only=True)
class Check(Number):
    """The finding of a row of the group. `limit`: a maximum if `at_most`, else a minimum; or how the value
    has to stand to the champion's, None: not worse."""

    digits: ClassVar[int] = 2  # 98.97 % is not 99 %
    group: str
    name: str
    what: str
    limit: float | str | None
    at_most: bool
    passed: bool
    inconclusive: bool = False
    why: str = ""

    @property
    def summary(self) -> str:
        """`Fréchet distance, less real images': 1.02 (0.810 to 1.23), expected ≤ 0.600`."""
        return f"{self.what}: {self.why or f'{self.with_interval}, expected {self.expected}'}"

    @property
    def expected(self) -> str:
        """`≤ 2.00 %`."""
        if isinstance(self.limit, float):
            sign = "≤" if self.at_most else "≥"
            return f"{sign} {as_text(self.limit, self.kind, self.digits)}"
        return (self.limit or "not_worse").replace("_", " ")


def check_group(group: str, subject: Any, limits: GateParams, heading: str = "") -> list[Check]:
    """The checks of a group's rows that have a value; `heading`: of their table, in place of the group's."""
    checks = []
    for row in ROWS[group]:
        limit: Any = getattr(limits, row.limit) if isinstance(row.limit, str) else row.limit
        finding = row.measure(subject, limit)
        if finding is None:
            continue
        at_most = not str(row.limit).startswith("min_")
        passed = finding.passed
        if passed is None:
            low, high = finding.interval or (finding.value, finding.value)
            passed = low <= limit if at_most else high >= limit
        found = finding._asdict() | {"passed": passed, "limit": limit, "at_most": at_most}
        what = f"{row.what} {found.pop('note')}".rstrip()
        checks.append(Check(group=heading or group, name=row.name, what=what, **found))
    return checks


def decide(checks: Sequence[Check], notes: Sequence[str] = ()) -> Report:
    """The verdict, `passed` or `blocked`, and why: everything that blocks, what is clear first, or what
    passing rests on. With a table for each group; `notes` come last."""
    failed = [check for check in checks if not check.passed]
    reasons = [check.summary for check in sorted(failed, key=lambda check: check.inconclusive)]
    if not failed:
        compared = [check.summary for check in checks if check.group == CHAMPION_GROUP]
        reasons = [*compared, "no limit is clearly exceeded"]
    return Report(
        question="Gate",
        verdict="blocked" if failed else "passed",
        sentence="",
        reasons=[*reasons, *notes],
        tables=[
            _as_table(group, checks) for group in dict.fromkeys(check.group for check in checks)
        ],
        facts={"checks": [asdict(check) for check in checks]},
    )


def _as_table(group: str, checks: Sequence[Check]) -> Table:
    of_group = [check for check in checks if check.group == group]
    rows = [
        (
            check.name.replace("_", " "),
            check,
            check.interval_in_words,
            check.expected,
            "passed" if check.passed else "failed",
        )
        for check in of_group
    ]
    head = ("", "value", "95 % interval", "expected", "")
    return Table(group, head, rows, [check.what for check in of_group])
