"""`cgan.compare`: do two generators differ beyond chance, and in what?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgan.base.report import Answer, Cell, Interval, Number, Report, Table
from cgan.base.settings import python_call
from cgan.quality.evaluation import Evaluation, Score, context_differences
from cgan.quality.intervals import Estimate

COLUMNS = ("↑: higher is better", "real images", "A", "B", "B less A", "95 % interval", "B is")
NOT_ALIKE = (
    "The numbers are not compared, because the two were measured differently. To compare them, evaluate both "
    "with one judge, one hold-out and the same params of `evaluate`; `cgan gate` does that for the champion "
    "and the present generator."
)


@dataclass(frozen=True)
class Change:
    """A metric of both, which has values. `interval`: at 95 %, of b - a, where it is known; `alike`: measured
    on as many images, where the value depends on it."""

    a: Score
    b: Score
    interval: Interval | None
    alike: bool = True

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `within chance`, `not compared`, or empty where no interval says it."""
        if not self.alike:
            return "not compared"
        if not self.interval:
            return ""
        low, high = self.interval
        if low <= 0 <= high:
            return "within chance"
        return "better" if (low > 0) == (self.a.better == "higher") else "worse"

    @property
    def difference(self) -> Number:
        """b - a; of shares in percentage points."""
        assert self.a.value is not None and self.b.value is not None
        return Number(
            value=self.b.value - self.a.value if self.alike else None,
            interval=self.interval,
            kind="points" if self.a.kind == "share" else "difference",
        )

    def row(self) -> tuple[Cell, ...]:
        """The cells below COLUMNS."""
        name = f"{self.a.name} {'↑' if self.a.better == 'higher' else '↓'}"
        real = Number(value=self.a.real if self.alike else None, kind=self.a.kind)
        change = self.difference
        return name, real, self.a, self.b, change, change.interval_in_words, self.verdict

    def facts(self) -> dict[str, Any]:
        values = {"a": self.a.value, "b": self.b.value, "verdict": self.verdict}
        return {**values, "difference": self.difference.value, "interval": self.interval}


@dataclass(frozen=True, repr=False)
class Comparison(Answer):
    """`changes`: of each metric that both have, from A to B; none where the two were measured differently, of
    which `conditions` says in what. `is_same`: are both of one generator?"""

    changes: Sequence[Change]
    conditions: Mapping[str, tuple[Any, Any]]
    is_same: bool

    def metrics(self, verdict: str) -> list[str]:
        """The names of those in which B is `better`, or `worse`. Fewer near copies are no merit where it is
        worse in something else: what is unlike everything copies nothing."""
        names = {each.a.key: each.a.name for each in self.changes if each.verdict == verdict}
        if verdict == "better" and self.metrics("worse"):
            names.pop("copies", None)
        return [*names.values()]

    @property
    def verdict(self) -> str:
        """What B is: `better`, `worse`, `better and worse`, `no difference`, or `not compared`."""
        if self.conditions:
            return "not compared"
        return " and ".join(filter(self.metrics, ("better", "worse"))) or "no difference"

    def report(self) -> Report:
        """The answer, with each metric of both in a table."""
        sentence = NOT_ALIKE
        if self.is_same:
            sentence = "A and B are one generator, compared with itself: there is nothing to find."
        elif self.verdict == "no difference":
            sentence = "There is no difference beyond chance between A and B."
        elif not self.conditions:
            better, worse = (", ".join(self.metrics(v)) or "no metric" for v in ("better", "worse"))
            sentence = f"B is better in {better}; worse in {worse}. The rest is within chance."
        tables = []
        if self.changes:
            tables.append(Table("Quality", COLUMNS, [each.row() for each in self.changes]))
        if self.conditions:
            rows = [(key, str(a), str(b)) for key, (a, b) in self.conditions.items()]
            tables.append(Table("Measured with", ("", "A", "B"), rows))
        return Report(
            question="Do two generators differ beyond chance?",
            verdict=self.verdict,
            sentence=sentence,
            tables=tables,
            facts={
                "metrics": {each.a.key: each.facts() for each in self.changes},
                "measured_with": {key: list(pair) for key, pair in self.conditions.items()},
                "is_same": self.is_same,
            },
        )


@python_call
def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """How the generator of `b` differs from that of `a`: each metric that both have, with the 95 % interval
    of the difference, which covers the drawings and the held-out images. Numbers are compared only where
    both were measured alike: by one judge, on one hold-out, with the same params."""
    conditions, changes = context_differences(a, b), list[Change]()
    for key, score in ({} if conditions else a.metrics).items():
        other = b.score(key)
        if score.value is not None and other.value is not None:
            alike = not context_differences(a, b, key)
            interval = change_interval(score, other) if alike else None
            changes.append(Change(score, other, interval, alike))
    digests = [each.context.get("generator_digest") for each in (a, b)]
    return Comparison(changes, conditions, digests[0] == digests[1] is not None)


def change_interval(a: Score, b: Score) -> Interval | None:
    """The interval of b - a; None where it is not known.

    Where both have replicates, it is the gate's interval: both had the same latents and real images, which
    were resampled alike. Elsewhere it is put together.
    """
    assert a.value is not None and b.value is not None
    if a.replicates and b.replicates:
        return (Estimate.of_score(b) - Estimate.of_score(a)).interval
    if a.interval and b.interval:
        return difference_interval(a.value, a.interval, b.value, b.interval)
    return None


def difference_interval(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """The interval of b - a, from those of both (Newcombe, Statistics in Medicine 17, 1998, method 10).

    It takes them for independent. Here both were measured with the same latents and the same real images,
    so that this is rather too wide than too narrow.
    """
    change = b - a
    low = change - math.hypot(b - of_b[0], of_a[1] - a)
    high = change + math.hypot(of_b[1] - b, a - of_a[0])
    return low, high
