"""Checks of the gate: a row of its table measures a number, which is held against a limit.

A limit stops what is clearly beyond it: of a number with a 95 % interval, all of the interval. So it stops no
good generator for the noise of few images; and noise makes none champion, as that takes a clear difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from cgan.base.report import Cell, Interval, Kind, Number, Table, in_words
from cgan.base.text import listed
from cgan.params.sections import GateParams

# Groups of rows: the headings of their tables.
DATA_GROUP = "Today's data"
LIMITS_GROUP = "Limits"
CHAMPION_GROUP = "Beside the champion"


class Finding(NamedTuple):
    """A measured value. `interval`: all of it has to be beyond the limit, unless `passed` says what is
    decided. `note`: which class has the value, or what it stands beside; `why`: a failure in words, where
    value and limit say too little."""

    value: float | None
    interval: Interval | None = None
    passed: bool | None = None
    note: str = ""
    why: str = ""
    kind: Kind = "share"


def largest(found: Iterable[tuple[float, str]], limit: float, kind: Kind = "share") -> Finding:
    """The largest of values, each with its words; why: the three largest above the limit, in their words."""
    ordered = sorted(found, reverse=True)
    far = [words for value, words in ordered if value > limit]
    why = f"{listed(far, 3)}; at most {in_words(limit, kind)}" if far else ""
    return Finding(max([0.0, *(value for value, _ in ordered)]), why=why, kind=kind)


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
    why: str = ""

    def in_words(self) -> str:
        """`Fréchet distance above that of real images: 1.02 (0.81 to 1.23), expected ≤ 0.6`."""
        return f"{self.what}: {self.why or f'{self.with_interval}, expected {self.expected}'}"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of its table."""
        name = self.name.replace("_", " ")
        verdict = "passed" if self.passed else "failed"
        return name, self, self.interval_in_words, self.expected, verdict

    @property
    def expected(self) -> str:
        """`≤ 2.00 %`."""
        if isinstance(self.limit, float):
            sign = "≤" if self.at_most else "≥"
            return f"{sign} {in_words(self.limit, self.kind, self.digits)}"
        return (self.limit or "not_worse").replace("_", " ")


@dataclass(frozen=True)
class Row:
    """A check of the gate. `limit`: the name of its param in the section gate, a `min_…` or a maximum; a
    number; or None. `what`: a noun phrase for what is measured. `measure` gets what the group is about, and
    the section gate; None: there is no value."""

    name: str
    limit: str | float | None
    what: str
    measure: Callable[[Any, GateParams], Finding | None]

    def check(self, group: str, subject: Any, limits: GateParams) -> Check | None:
        """The check of this row, if there is a value."""
        finding = self.measure(subject, limits)
        if finding is None:
            return None
        limit: Any = getattr(limits, self.limit) if isinstance(self.limit, str) else self.limit
        at_most = not str(self.limit).startswith("min_")
        passed = finding.passed
        if passed is None:
            low, high = finding.interval or (finding.value, finding.value)
            passed = low <= limit if at_most else high >= limit
        return Check(
            group=group,
            name=self.name,
            what=f"{self.what} {finding.note}".rstrip(),
            value=finding.value,
            interval=finding.interval,
            kind=finding.kind,
            limit=limit,
            at_most=at_most,
            passed=passed,
            why=finding.why,
        )


def decide(checks: Sequence[Check]) -> tuple[str, list[str]]:
    """The verdict, `passed` or `blocked`, and why: everything that blocks, or what passing rests on."""
    failures = [check.in_words() for check in checks if not check.passed]
    if failures:
        return "blocked", failures
    compared = [check.in_words() for check in checks if check.group == CHAMPION_GROUP]
    return "passed", [*compared, "no limit is clearly exceeded"]


def tables_of(checks: Sequence[Check]) -> list[Table]:
    """A table for each group."""
    tables = []
    for group in dict.fromkeys(check.group for check in checks):
        of_group = [check for check in checks if check.group == group]
        notes = [check.what for check in of_group]
        head = ("", "value", "95 % interval", "expected", "")
        tables.append(Table(group, head, [check.cells for check in of_group], notes))
    return tables
