"""Two runs in Markdown: for a terminal, and for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cgan.markdown import in_markdown, table
from cgan.page.assemble import number

MOST_CLASSES = 20
LONGEST_CELL = 120  # characters
ARROWS = {"higher": "↑", "lower": "↓"}
CHANGE = ("A", "B", "B less A", "95 % interval", "B is")


def compare_markdown(compare: dict[str, Any], verdict: str, names: list[str]) -> str:
    a, b = compare["runs"]
    runs = [("run", a["title"], b["title"]), ("in short", a["verdict"] or "", b["verdict"] or "")]
    parts = [f"**{in_markdown(verdict)}**", _table("", ("A", "B"), runs)]
    if compare["metrics"] is None:
        parts.append(_table("measured with", ("A", "B"), compare["contexts_differ"]))
    else:
        rows = [
            (f"{row['name']} {ARROWS[row['better']]}", number(row["floor"]), *_change(row))
            for row in compare["metrics"]
        ]
        parts += ["### Metrics", _table("↑: higher is better", ("real images", *CHANGE), rows, 5)]
        differ = [row for row in compare["classes"] if row["verdict"] in ("better", "worse")]
        rows = [(names[row["label"]], *_change(row)) for row in differ[:MOST_CLASSES]]
        parts.append(f"### Classes whose accuracy clearly differs: {len(differ) or 'none'}")
        first = "class" if len(rows) == len(differ) else f"the first {MOST_CLASSES}"
        parts.append(_table(first, CHANGE, rows, 4))
    parts.append(f"### Params that differ: {len(compare['params']) or 'none'}")
    parts.append(_table("", ("A", "B"), compare["params"]))
    parts += ["### Code", compare["code"]]
    return "\n\n".join(filter(None, parts)) + "\n"


def _change(row: dict[str, Any]) -> list[str]:
    interval = "–" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
    return [*(number(row[key]) for key in ("a", "b", "change")), interval, row["verdict"]]


def _table(
    first: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0
) -> str:
    """Nothing where there is no row."""
    cut = [[c[:LONGEST_CELL] + "…" * (len(c) > LONGEST_CELL) for c in row] for row in rows]
    return table((first, *heads), cut, numbers) if rows else ""
