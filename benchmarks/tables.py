"""Results of a benchmark: tables in Markdown, checks of promises, and the figures as plain JSON."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """`note` says what the rows mean and how they were measured."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: str) -> None:
        assert len(cells) == len(self.columns)
        self.rows.append(list(cells))

    def markdown(self) -> str:
        ruler = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, ruler, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", self.note]).rstrip()


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
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×"
