"""`cgan compare`: how two runs differ: metrics with intervals of the difference, and params."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markdown import Markdown

from cgan.evaluation import METRICS, Evaluation, Interval, Metric, context_differences
from cgan.markdown import table
from cgan.page.assemble import format_number
from cgan.pipeline.runs.recorded_run import read_run
from cgan.pipeline.tracking.run import TrainingRecord
from cgan.quality.intervals import change_interval
from cgan.text import listed, printable

LONGEST_CELL = 300  # characters
COLUMNS = ("real images", "A", "B", "B less A", "95 % interval", "B is")
NOT_ALIKE = (
    "**The numbers are not compared, because the two runs were measured differently.** To compare them, "
    "evaluate both with one judge, one hold-out and the same params of `evaluate`. `cgan gate` does that for "
    "the champion and the present generator."
)


@dataclass(frozen=True)
class MetricDifference:
    """A number of both runs. `interval`: at 95 %, of b - a, where it is known; `alike`: measured on as many
    images, where the value depends on it."""

    metric: Metric
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

    def cells(self) -> tuple[str, ...]:
        name = f"{self.metric.name} {self.metric.arrow}"
        real = "–" if self.real is None else self.metric.shown(self.real)
        difference = self._signed(self.b - self.a) if self.alike else "–"
        interval = " to ".join(map(self._signed, self.interval or ())) or "–"
        values = (self.metric.shown(value) for value in (self.a, self.b))
        return name, real, *values, difference, interval, self.verdict

    def _signed(self, difference: float) -> str:
        """A difference with its sign, of shares in percentage points: `+0.4 %`."""
        if self.metric.is_share:
            return f"{100 * difference:+.1f} %"
        return f"{'+' if difference > 0 else ''}{format_number(difference)}"


def compare(a: str, b: str, console: Console) -> None:
    """Show how two runs differ, as Markdown where that is no terminal. Each is what `read_run` takes."""
    text = printable(comparison(*read_run(a), *read_run(b)), keep="\n")
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        console.out(text, end="", highlight=False)


def comparison(a: Evaluation, run_a: TrainingRecord, b: Evaluation, run_b: TrainingRecord) -> str:
    """Markdown; numbers only where both were measured alike."""
    names = [run.get("run_name") or "" for run in (run_a, run_b)]
    if context := context_differences(a.context, b.context):
        rows = [(key, *map(str, pair)) for key, pair in context.items()]
        parts = [NOT_ALIKE, _table("measured with", ("A", "B"), [("run", *names), *rows])]
    else:
        differences = metric_differences(a, b)
        metrics = _table("↑: higher is better", COLUMNS, [each.cells() for each in differences], 5)
        parts = [conclusion(differences), _table("", ("A", "B"), [("run", *names)]), metrics]
    params_a, params_b = run_a["params"], run_b["params"]
    params = [(key, params_a.get(key, "–"), params_b.get(key, "–")) for key in params_a | params_b]
    differ = [(key, value_a, value_b) for key, value_a, value_b in params if value_a != value_b]
    parts += [f"### Params that differ: {len(differ) or 'none'}", _table("", ("A", "B"), differ)]
    return "\n\n".join(filter(None, parts)) + "\n"


def metric_differences(a: Evaluation, b: Evaluation) -> list[MetricDifference]:
    """The differences of the metrics that both have."""
    differences = list[MetricDifference]()
    for key, metric in METRICS.items():
        of_a, of_b = a.score(key), b.score(key)
        if of_a.value is not None and of_b.value is not None:
            alike = not context_differences(a.context, b.context, key)
            interval, real = (change_interval(key, a, b), of_a.real) if alike else (None, None)
            differences.append(
                MetricDifference(metric, of_a.value, of_b.value, interval, real, alike)
            )
    return differences


def conclusion(differences: Sequence[MetricDifference]) -> str:
    """`**B is better in recall; worse in no metric.**` in Markdown, or that nothing differs beyond chance.

    Fewer near copies are no merit of a run that is worse in something else: what is unlike everything copies
    nothing.
    """
    better, worse = (
        [each.metric.name for each in differences if each.verdict == verdict]
        for verdict in ("better", "worse")
    )
    if worse and METRICS["copies"].name in better:
        better.remove(METRICS["copies"].name)
    if not better and not worse:
        return "**There is no difference beyond chance between A and B.**"
    named = [listed(names, most=len(METRICS)) or "no metric" for names in (better, worse)]
    return f"**B is better in {named[0]}; worse in {named[1]}.** The rest is within chance."


def _table(
    first: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0
) -> str:
    """Nothing where there is no row."""
    cut = [[textwrap.shorten(c, LONGEST_CELL, placeholder="…") for c in row] for row in rows]
    return table((first, *heads), cut, numbers) if rows else ""
