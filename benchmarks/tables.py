"""What a benchmark hands back: tables, checks and raw figures; printed, and written into the docs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.files import write_text


@dataclass
class Table:
    """`note` says what the rows mean, how they were measured, and what to doubt."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: str) -> None:
        assert len(cells) == len(self.columns)
        self.rows.append(list(cells))

    def plain(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = [
            line[0].ljust(widths[0])
            + "".join(
                f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)
            )
            for line in lines
        ]
        return "\n".join(["", self.title, *(f"  {line.rstrip()}" for line in text), self.note])

    def markdown(self) -> str:
        ruler = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, ruler, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", self.note]).rstrip() + "\n"


@dataclass(frozen=True)
class Check:
    """A promise and whether it held."""

    promise: str
    found: str
    held: bool

    def __str__(self) -> str:
        return f"{'holds' if self.held else 'DOES NOT HOLD'}: {self.promise}: {self.found}"


@dataclass
class Result:
    """`figures` is plain JSON: everything that was measured, for later questions."""

    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def replace_between_markers(path: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`, the rest as it was."""
    start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(before)) != 1:
        raise CganError(
            f"{path}: expected the markers `{start}` and `{end}` once, in this order. Put them "
            "back where the figures belong, or restore the file from git."
        )
    write_text(path, pattern.sub(lambda _: f"{start}\n{text.strip()}\n{end}", before))


def times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×"
