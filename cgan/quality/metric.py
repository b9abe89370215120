"""A metric: what it is, and how it is measured. Each stands beside its formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cgan.quality.evaluation import MetricFacts, Score

if TYPE_CHECKING:
    from cgan.quality.conditions import DrawnSet


@dataclass(frozen=True, kw_only=True)
class Metric(MetricFacts):
    """`measure` gives the numbers of a set of drawings; None where they are not known. `by_judge`: what it
    says of drawings, the judge sees."""

    measure: Callable[[DrawnSet], Score | None]
    by_judge: bool = True

    @property
    def facts(self) -> dict[str, Any]:
        return {fact.name: getattr(self, fact.name) for fact in fields(MetricFacts)}

    def score(self, drawn: DrawnSet) -> Score:
        """The numbers of drawings, with what they mean. Where the judge may be no better than one that
        guesses, what it sees has no value."""
        found = self.measure(drawn) or Score()
        if self.by_judge and drawn.conditions.not_measurable:
            found = replace(found, value=None, interval=None, replicates=())
        interval = None
        if found.interval:  # within what the metric can be
            low, high = found.interval
            interval = max(0.0, low), min(1.0, high) if self.kind == "share" else high
        return replace(found, **self.facts, interval=interval)
