"""`cgan compare`: how two runs differ: metrics with intervals of the difference, params, code."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markdown import Markdown

from cgan.evaluation import METRICS, Evaluation, Interval, Metric, context_differences
from cgan.markdown import table
from cgan.page.assemble import format_number
from cgan.pipeline.runs.recorded_run import read_run
from cgan.pipeline.tracking.run import TrainingRecord
from cgan.quality.intervals import change_interval
from cgan.quality.table import quality_line
from cgan.text import listed, printable

LONGEST_CELL = 300  # characters: a line of quality is not cut
COLUMNS = ("real images", "A", "B", "B less A", "95 % interval", "B is")
NOT_ALIKE = (
    "**The numbers are not compared, because the two runs were measured differently.** To compare them, "
    "evaluate both with one judge, one hold-out and the same params of `evaluate`. `cgan gate` does that for "
    "the champion and the present generator."
)


@dataclass(frozen=True)
class RunDifference:
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
    (evaluation_a, run_a), (evaluation_b, run_b) = read_run(a), read_run(b)
    text = printable(comparison(evaluation_a, run_a, evaluation_b, run_b), keep="\n")
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        console.out(text, end="", highlight=False)


def comparison(a: Evaluation, run_a: TrainingRecord, b: Evaluation, run_b: TrainingRecord) -> str:
    """Markdown; numbers only where both were measured alike."""
    names = [run.get("run_name") or "" for run in (run_a, run_b)]
    runs = _table("", ("A", "B"), [("run", *names), ("in short", quality_line(a), quality_line(b))])
    if context := context_differences(a.context, b.context):
        rows = [(key, *map(str, pair)) for key, pair in context.items()]
        parts = [NOT_ALIKE, runs, _table("measured with", ("A", "B"), rows)]
    else:
        metrics = metric_changes(a, b)
        rows = [change.cells() for change in metrics]
        parts = [conclusion(metrics), _count_caveat(a, b, metrics), runs, "### Metrics"]
        parts += [_table("↑: higher is better", COLUMNS, rows, numbers=5)]
    params_a, params_b = run_a["params"], run_b["params"]
    params = [(key, params_a.get(key, "–"), params_b.get(key, "–")) for key in params_a | params_b]
    differ = [(key, value_a, value_b) for key, value_a, value_b in params if value_a != value_b]
    parts += [f"### Params that differ: {len(differ) or 'none'}", _table("", ("A", "B"), differ)]
    parts += ["### Code", code_in_words(*(run.get("origin") or {} for run in (run_a, run_b)))]
    return "\n\n".join(filter(None, parts)) + "\n"


def metric_changes(a: Evaluation, b: Evaluation) -> list[RunDifference]:
    """The changes of the metrics that both have."""
    changes = list[RunDifference]()
    for key, metric in METRICS.items():
        of_a, of_b = a.score(key), b.score(key)
        if metric.in_tables and of_a.value is not None and of_b.value is not None:
            alike = not context_differences(a.context, b.context, key)
            interval, real = (change_interval(key, a, b), of_a.real) if alike else (None, None)
            changes.append(RunDifference(metric, of_a.value, of_b.value, interval, real, alike))
    return changes


def _count_caveat(a: Evaluation, b: Evaluation, changes: Sequence[RunDifference]) -> str:
    """What a reader should know where the drawings judged differ in number; otherwise nothing."""
    counts = [each.context.get("drawn_images") for each in (a, b)]
    if counts[0] == counts[1]:
        return ""
    text = "{:,} drawings of A were judged and {:,} of B: ".format(*counts)
    text += "where there are fewer, intervals are wider, and GAN-train has less to learn from."
    if names := listed([change.metric.name for change in changes if not change.alike]):
        text += (
            f" Not compared, as it depends on the number of images: {names}. `cgan gate` draws as many of "
            "the champion as of the present generator."
        )
    return text


def conclusion(changes: Sequence[RunDifference]) -> str:
    """Markdown: which run is better, in what, whether that may be luck, and what to do next.

    `**B is better in recall; the rest is within chance.** …` Fewer near copies are no merit of a run that is
    worse in something else: what is unlike everything copies nothing. A difference without an interval is
    named, for nobody can say whether it is chance.
    """
    names = {
        verdict: [c.metric.name for c in changes if c.a != c.b and c.verdict == verdict]
        for verdict in ("better", "worse", "within chance", "")
    }
    if names["worse"] and METRICS["copies"].name in names["better"]:
        names["better"].remove(METRICS["copies"].name)
    better, worse = (listed(names[verdict], most=len(METRICS)) for verdict in ("better", "worse"))
    if better and worse:
        first = f"Neither is clearly better: B is better in {better}, worse in {worse}"
        advice = "Look at both pages, and decide which of these matters more to you."
    elif better or worse:
        first = f"B is better in {better}" if better else f"A is better: B is worse in {worse}"
        advice = (
            "That holds for these two generators. Whether their params differ that much, or only their "
            "seeds, says `python -m flows.sweep --seeds 5`."
        )
    else:
        first = "There is no difference beyond chance between A and B"
        advice = "More drawings (`evaluate.samples`) and more held-out images show smaller ones."
    if (better or worse) and names["within chance"]:
        first += "; the rest is within chance"
    if names[""]:
        first += f"; of {listed(names[''], most=len(METRICS))}, chance is not known"
    return f"**{first}.** {advice}"


def code_in_words(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    """What shows how the code of two runs differs. `a`, `b`: what each was made from."""
    commits = [origin.get("commit", "") for origin in (a, b)]
    if not all(commits):
        return "One of the two runs was made outside of git."
    text = "Both runs have the same commit."
    if commits[0] != commits[1]:
        text = f"`git diff {' '.join(commit[:12] for commit in commits)} -- cgan flows dvc.yaml`"
    dirty = [name for name, origin in (("A", a), ("B", b)) if origin.get("dirty") == "true"]
    if dirty:
        text += f" {' and '.join(dirty)} had uncommitted changes: `source/patch.diff` of the run in MLflow."
    return text


def _table(
    first: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0
) -> str:
    """Nothing where there is no row."""
    cut = [[textwrap.shorten(c, LONGEST_CELL, placeholder="…") for c in row] for row in rows]
    return table((first, *heads), cut, numbers) if rows else ""
