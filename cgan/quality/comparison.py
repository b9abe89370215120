"""`cgan.compare`: do two generators differ beyond chance, and in what?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgan.base.report import Answer, Cell, Interval, Kind, Number, Report, Table
from cgan.base.settings import python_call
from cgan.quality.evaluation import Evaluation, Score
from cgan.quality.intervals import Estimate
from cgan.quality.proportions import difference_interval

# Keys of a context in which evaluations may differ and be compared. Of fewer drawings intervals are wider.
FREE_KEYS = {"generator_digest", "drawn_images"}
COLUMNS = ("↑: higher is better", "real images", "A", "B", "B − A", "95 % interval", "B is")
NOT_ALIKE = (
    "The numbers are not compared, because the two were measured differently. To compare them, evaluate both "
    "with one judge, one hold-out and the same params of `evaluate`; `cgan gate` does that for the champion "
    "and the present generator."
)


@dataclass(frozen=True)
class Change:
    """A metric that both have. `difference`: b - a, of shares a fraction that is shown in points; without a
    value where the metric was measured on other numbers of images, on which it depends."""

    a: Score
    b: Score
    difference: Number

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `within chance`, `not compared`, or empty where no interval says it."""
        if self.difference.value is None:
            return "not compared"
        if not self.difference.interval:
            return ""
        low, high = self.difference.interval
        if low <= 0 <= high:
            return "within chance"
        return "better" if (low > 0) == (self.a.better == "higher") else "worse"

    def row(self) -> tuple[Cell, ...]:
        """The cells below COLUMNS."""
        a, difference = self.a, self.difference
        name = f"{a.name} {'↑' if a.better == 'higher' else '↓'}"
        real = Number(value=None if difference.value is None else a.real, kind=a.kind)
        return name, real, a, self.b, difference, difference.interval_in_words, self.verdict

    def facts(self) -> dict[str, Any]:
        """The values, for programs."""
        values = {"a": self.a.value, "b": self.b.value, "verdict": self.verdict}
        return values | {"difference": self.difference.value, "interval": self.difference.interval}


@dataclass(frozen=True, repr=False)
class Comparison(Answer):
    """Changes from A to B in each metric that both have. Empty where they were measured differently;
    `conditions` then says in what. `is_same`: are both of one generator?

    >>> evaluation = cgan.evaluate(run.generator, train, held_out, samples=300, gan_train_kimg=0)
    >>> comparison = cgan.compare(evaluation, evaluation)
    >>> comparison.report().verdict, comparison.conditions, comparison.metrics("better")
    ('no difference', {}, [])
    """

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
        """`better`, `worse`, `better and worse`, `no difference`, or `not compared`: what B is."""
        if self.conditions:
            return "not compared"
        return " and ".join(filter(self.metrics, ("better", "worse"))) or "no difference"

    def report(self) -> Report:
        """The answer, with each metric of both in a table."""
        better, worse = (", ".join(self.metrics(v)) or "no metric" for v in ("better", "worse"))
        sentence = f"B is better in {better}; worse in {worse}. The rest does not differ clearly."
        if self.is_same:
            sentence = "A and B are one generator, compared with itself: there is nothing to find."
        elif self.conditions:
            sentence = NOT_ALIKE
        elif self.verdict == "no difference":
            sentence = "No metric that was compared differs clearly."
        conditions = [(key, str(a), str(b)) for key, (a, b) in self.conditions.items()]
        tables = (
            Table("Quality", COLUMNS, [each.row() for each in self.changes]),
            Table("Measured with", ("", "A", "B"), conditions),
        )
        metrics = {each.a.key: each.facts() for each in self.changes}
        measured_with = {key: list(pair) for key, pair in self.conditions.items()}
        return Report(
            question="Do two generators differ beyond chance?",
            verdict=self.verdict,
            sentence=sentence,
            tables=[table for table in tables if table.rows],
            facts={"metrics": metrics, "measured_with": measured_with, "is_same": self.is_same},
        )


@python_call
def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Comparison of the generator of `b` with that of `a`: each metric that both have, with the 95 % interval
    of the difference, which covers the drawings and the held-out images. Numbers are compared only where
    both were measured alike: by one judge, on one hold-out, with the same params.

    >>> evaluation = cgan.evaluate(run.generator, train, held_out, samples=300, gan_train_kimg=0)
    >>> cgan.compare(evaluation, evaluation).verdict
    'no difference'
    """
    keys = sorted((a.context.keys() | b.context.keys()) - FREE_KEYS)
    pairs = {key: (a.context.get(key), b.context.get(key)) for key in keys}
    unlike = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    sample_size_keys = {score.sample_size_key for score in a.metrics.values()}
    conditions = {key: pair for key, pair in unlike.items() if key not in sample_size_keys}
    changes = []
    for key, score in ({} if conditions else a.metrics).items():
        other = b.score(key)
        if score.value is not None and other.value is not None:
            is_alike = score.sample_size_key not in unlike
            difference = _difference(score, other) if is_alike else Number()
            changes.append(Change(score, other, difference))
    digests = [each.context.get("generator_digest") for each in (a, b)]
    return Comparison(changes, conditions, digests[0] == digests[1] is not None)


def _difference(a: Score, b: Score) -> Number:
    """b - a, of scores that have values. Where both have deviations, the interval is of their difference:
    both had the same latents and real images, which were resampled alike. Elsewhere it is put together, where
    both have one."""
    assert a.value is not None and b.value is not None
    interval: Interval | None = None
    if a.deviations and b.deviations:
        before, after = (Estimate.restored(each.value, each.deviations) for each in (a, b))
        interval = (after - before).interval
    elif a.interval and b.interval:
        interval = difference_interval(a.value, a.interval, b.value, b.interval)
    kind: Kind = "points" if a.kind == "share" else "difference"
    return Number(value=b.value - a.value, interval=interval, kind=kind)
