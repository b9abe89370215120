"""`cgan.compare`: do two generators differ beyond chance, and in what?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgan.evaluation import Evaluation, Score, context_differences
from cgan.quality.intervals import change_interval
from cgan.report import Cell, Interval, Kind, Number, Report, Table

COLUMNS = ("↑: higher is better", "real images", "A", "B", "B less A", "95 % interval", "B is")
COPIES = "copies"
NOT_ALIKE = (
    "The numbers are not compared, because the two were measured differently. To compare them, evaluate both "
    "with one judge, one hold-out and the same params of `evaluate`; `cgan gate` does that for the champion "
    "and the present generator."
)


@dataclass(frozen=True)
class MetricDifference:
    """A number of both. `interval`: at 95 %, of b - a, where it is known; `alike`: measured on as many
    images, where the value depends on it."""

    metric: Score  # of a
    a: float
    b: float
    interval: Interval | None
    real: float | None = None  # what real images get
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
        return "better" if (low > 0) == (self.metric.better == "higher") else "worse"

    @property
    def difference(self) -> Number:
        """b - a; of shares in percentage points."""
        value = self.b - self.a if self.alike else None
        kind: Kind = "points" if self.metric.kind == "share" else "difference"
        return Number(value=value, interval=self.interval, kind=kind)

    def row(self) -> tuple[Cell, ...]:
        """The cells below COLUMNS."""
        shown = [
            Number(value=value, kind=self.metric.kind) for value in (self.real, self.a, self.b)
        ]
        interval = self.difference.interval_in_words
        name = f"{self.metric.name} {'↑' if self.metric.better == 'higher' else '↓'}"
        return name, *shown, self.difference, interval, self.verdict

    def facts(self) -> dict[str, Any]:
        found = self.difference
        return {
            **{"a": self.a, "b": self.b, "real": self.real, "verdict": self.verdict},
            **{"difference": found.value, "interval": found.interval},
        }


@dataclass(frozen=True, repr=False)
class Comparison:
    """`differences`: of each metric that both have, B less A; none where the two were measured differently,
    of which `conditions` says in what. `is_same`: are both of one generator?"""

    differences: Sequence[MetricDifference]
    conditions: Mapping[str, tuple[Any, Any]]
    is_same: bool

    @property
    def better(self) -> list[str]:
        """The names of the metrics in which B is better. Fewer near copies are no merit where it is worse in
        something else: what is unlike everything copies nothing."""
        is_merit = [each for each in self._of("better") if each.key != COPIES or not self.worse]
        return [metric.name for metric in is_merit]

    @property
    def worse(self) -> list[str]:
        """The names of those in which it is worse."""
        return [metric.name for metric in self._of("worse")]

    def _of(self, verdict: str) -> list[Score]:
        return [each.metric for each in self.differences if each.verdict == verdict]

    @property
    def verdict(self) -> str:
        """What B is: `better`, `worse`, `better and worse`, `no difference`, or `not compared`."""
        if self.conditions:
            return "not compared"
        words = {"better": self.better, "worse": self.worse}
        return " and ".join(word for word, names in words.items() if names) or "no difference"

    def __repr__(self) -> str:
        return self.report().as_text()

    def _repr_html_(self) -> str:
        return self.report().as_html()

    def report(self) -> Report:
        """The answer, with each metric of both in a table."""
        tables = []
        if self.differences:
            tables.append(Table("Quality", COLUMNS, [each.row() for each in self.differences]))
        if self.conditions:
            rows = [(key, str(a), str(b)) for key, (a, b) in self.conditions.items()]
            tables.append(Table("Measured with", ("", "A", "B"), rows))
        return Report(
            question="Do two generators differ beyond chance?",
            verdict=self.verdict,
            sentence=self._sentence(),
            tables=tables,
            facts={
                "metrics": {each.metric.key: each.facts() for each in self.differences},
                "measured_with": {key: list(pair) for key, pair in self.conditions.items()},
                "is_same": self.is_same,
            },
        )

    def _sentence(self) -> str:
        """`B is better in recall; worse in no metric.`"""
        same = "A and B are one generator, compared with itself. " if self.is_same else ""
        if self.conditions:
            return same + NOT_ALIKE
        if not self.better and not self.worse:
            return f"{same}There is no difference beyond chance between A and B."
        named = [", ".join(names) or "no metric" for names in (self.better, self.worse)]
        return f"{same}B is better in {named[0]}; worse in {named[1]}. The rest is within chance."


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """How the generator of `b` differs from that of `a`: each metric that both have, with the 95 % interval
    of the difference, which covers the drawings and the held-out images. Numbers are compared only where
    both were measured alike: by one judge, on one hold-out, with the same params."""
    digests = [each.context.get("generator_digest") for each in (a, b)]
    conditions = context_differences(a, b)
    differences = [] if conditions else metric_differences(a, b)
    return Comparison(differences, conditions, digests[0] == digests[1] is not None)


def metric_differences(a: Evaluation, b: Evaluation) -> list[MetricDifference]:
    """The differences of the metrics that both have."""
    differences = list[MetricDifference]()
    for key, of_a in a.metrics.items():
        of_b = b.score(key)
        if of_a.value is not None and of_b.value is not None:
            alike = not context_differences(a, b, key)
            interval, real = (change_interval(key, a, b), of_a.real) if alike else (None, None)
            differences.append(
                MetricDifference(of_a, of_a.value, of_b.value, interval, real, alike)
            )
    return differences
