"""Two runs in Markdown, for a pull request: what their page shows, but for pictures and curves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cgan.markdown import in_markdown, table
from cgan.page.assemble import number
from cgan.project import CONFUSION, FILM, GRID
from cgan.run.delivery import ARROWS

MOST_CLASSES = 20  # rows
LONGEST_CELL = 120  # characters
CHANGE = ("A", "B", "B less A", "95 % interval", "B is")


def compare_markdown(
    compare: dict[str, Any], code: dict[str, Any], verdict: str, names: list[str]
) -> str:
    runs = [[run["title"], run["verdict"] or ""] for run in compare["runs"]]
    parts = [
        f"**{in_markdown(verdict)}**",
        _table(("", "A", "B"), zip(("run", "in short"), *runs, strict=True)),
    ]
    if compare["metrics"] is None:
        parts.append(_table(("measured with", "A", "B"), compare["contexts_differ"]))
    else:
        rows = [
            (f"{row['name']} {ARROWS[row['better']]}", number(row["floor"]), *_change(row))
            for row in compare["metrics"]
        ]
        differ = [row for row in compare["classes"] if row["verdict"] in ("better", "worse")]
        parts += [
            "### Metrics",
            table(("↑: higher is better", "real images", *CHANGE), rows, 5),
            f"### Classes whose accuracy clearly differs: {len(differ) or 'none'}",
        ]
        if differ:
            rows = [(names[row["label"]], *_change(row)) for row in differ[:MOST_CLASSES]]
            first = "class" if len(rows) == len(differ) else f"the first {MOST_CLASSES}"
            parts.append(table((first, *CHANGE), rows, 4))
    parts.append(f"### Params that differ: {len(compare['params']) or 'none'}")
    if compare["params"]:
        parts.append(_table(("", "A", "B"), compare["params"]))
    parts += ["### Code", "\n".join(f"- {in_markdown(line)}" for line in code["lines"])]
    if code["stat"]:
        patch = _fenced(code["patch"], "diff")
        parts.append(_fenced(code["stat"]))
        parts.append(f"<details><summary>The difference</summary>\n\n{patch}\n\n</details>")
    files = ", ".join(f"`{path}`" for path in (GRID, FILM, CONFUSION))
    parts.append(f"### Pictures\n\n{files} of each run, and the page beside this file.")
    return "\n\n".join(parts) + "\n"


def _change(row: dict[str, Any]) -> list[str]:
    interval = "–" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
    return [*(number(row[key]) for key in ("a", "b", "change")), interval, row["verdict"]]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    short = (
        [cell[:LONGEST_CELL] + "…" * (len(cell) > LONGEST_CELL) for cell in row] for row in rows
    )
    return table(head, short)


def _fenced(text: str, language: str = "") -> str:
    """As it is, whatever stands in it."""
    fence = "`" * (1 + max(map(len, ["``", *re.findall("`+", text)])))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
