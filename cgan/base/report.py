"""An answer to a question: a verdict with its reasons, numbers in tables, pictures and facts; in four forms,
for a terminal, as Markdown, as HTML for pages and notebooks, and as JSON.

Whoever measures something fills in a `Report`; whoever shows it takes one of the forms.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from cgan.base.files import write_json, write_text
from cgan.base.text import percent, printable

Interval = tuple[float, float]  # at 95 %
Kind = Literal["share", "points", "number", "difference"]
"""How a number is written: `98.6 %`; `+1.2`, a difference of two shares; `0.335`; `+0.012`, one of two
numbers."""

CANNOT_TELL = "cannot tell"  # the verdict where numbers are too uncertain for another
TERMINAL_ROWS = 20  # of a table; the files have them all


def as_text(value: float | None, kind: Kind = "share", digits: int = 1) -> str:
    """Format a number: "" for None, a dash for what is not finite. `digits`: decimals of shares, points."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "–"
    if kind == "share":
        return percent(value, digits)
    if kind == "points":
        return f"{100 * value:+.{digits}f}"
    sign = "+" if kind == "difference" and value > 0 else ""
    return sign + (f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip("."))


@dataclass(frozen=True, kw_only=True)
class Number:
    """A `value` with its 95 % interval, beside `real`, what real images get. None: not known."""

    value: float | None = None
    interval: Interval | None = None
    real: float | None = None
    kind: Kind = "share"
    digits: ClassVar[int] = 1  # decimals of shares and points

    def __str__(self) -> str:
        """`98.6 %`."""
        return as_text(self.value, self.kind, self.digits)

    @property
    def interval_in_words(self) -> str:
        """`97.9 % to 99.1 %`; nothing where it is not known."""
        if self.interval is None or self.value is None or not math.isfinite(self.value):
            return ""
        return " to ".join(as_text(end, self.kind, self.digits) for end in self.interval)

    @property
    def with_interval(self) -> str:
        """`98.6 % (97.9 % to 99.1 %)`."""
        return f"{self} ({self.interval_in_words})" if self.interval_in_words else str(self)


Cell = str | int | float | Number | None


def cell_text(cell: Cell) -> str:
    """A cell of a table as text: counts with commas."""
    if isinstance(cell, float):
        return as_text(cell, "number")
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass(frozen=True)
class Table:
    """`rows` of as many cells as `head` has, the first of which names the row. `notes`: a sentence for each
    row, where there are any; no terminal has room for these."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def as_rows(self) -> list[list[str]]:
        """The cells as text, the head first, the notes last."""
        lines = [[cell_text(cell) for cell in row] for row in (self.head, *self.rows)]
        if self.notes:
            for line, note in zip(lines, ("what it means", *self.notes), strict=True):
                line.append(note)
        return lines

    def as_text(self) -> str:
        """The table in columns; nothing in a name commands the terminal."""
        lines = [
            [*map(printable, row[: len(self.head)])] for row in self.as_rows()[: TERMINAL_ROWS + 1]
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        if (left_out := len(self.rows) - TERMINAL_ROWS) > 0:
            shown.append(f"… and {left_out:,} more")
        return "\n".join(shown)

    def as_markdown(self) -> str:
        """Names and notes on the left, numbers on the right."""
        head, *rows = ([in_markdown(cell) for cell in line] for line in self.as_rows())
        marks = ["---", *["---:"] * (len(self.head) - 1), *["---"] * (len(head) - len(self.head))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))

    def as_html(self) -> str:
        """The table with its heading as caption; on a phone each row is a card, in which `data-of` names the
        cells. A cell that is markup already (`__html__`) stays as it is."""
        cells = [*self.rows]
        if self.notes:
            cells = [[*row, note] for row, note in zip(cells, self.notes, strict=True)]
        head, *_ = ([html.escape(name) for name in line] for line in self.as_rows())
        names = "".join(f'<th scope="col">{name}</th>' for name in head)
        body = "".join(f"<tr>{''.join(_html_cells(head, row))}</tr>\n" for row in cells)
        caption = f"<caption>{html.escape(self.heading)}</caption>" if self.heading else ""
        return f"<table>{caption}\n<thead><tr>{names}</tr></thead>\n<tbody>{body}</tbody></table>\n"


def _html_cells(head: Sequence[str], row: Sequence[Cell]) -> Iterator[str]:
    for number, (name, cell) in enumerate(zip(head, row, strict=True)):
        # A number and its sign stay on one line.
        text = str(cell) if hasattr(cell, "__html__") else html.escape(cell_text(cell))
        text = text.replace(" %", "\u00a0%")
        yield f'<td data-of="{name}">{text}</td>' if number else f'<th scope="row">{text}</th>'


@dataclass(frozen=True, kw_only=True)
class Report:
    """The answer to a `question`. `verdict`: a word or two, where there is one; `sentence`: the answer;
    `reasons`: what a reader should know beside it. `pictures`: PNGs by what is to be seen in them. `facts`:
    all that a program may read."""

    question: str
    verdict: str = ""
    sentence: str
    reasons: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def as_text(self) -> str:
        """The answer for a terminal."""
        lines = [self._answer, *(f"  - {reason}" for reason in self._other_reasons())]
        lines = [printable(line, keep="\n") for line in lines]
        for table in self.tables:
            lines += ["", *([f"{table.heading}:"] if table.heading else ()), table.as_text()]
        return "\n".join(lines)

    def as_markdown(self, pictures: str = "", level: int = 2) -> str:
        """The answer with its tables, whose headings are of this `level`; `pictures`: Markdown of pictures,
        which come after the sentence."""
        parts = [f"**{in_markdown(self.sentence)}**", pictures]
        parts.append("\n".join(f"- {in_markdown(reason)}" for reason in self._other_reasons()))
        for table in self.tables:
            heading = f"{'#' * level} {in_markdown(table.heading)}\n\n" if table.heading else ""
            parts.append(heading + table.as_markdown())
        return "\n\n".join(filter(None, parts)) + "\n"

    def as_html(self) -> str:
        """The answer for a notebook; a page takes its parts."""
        parts = [f"<p>{html.escape(text)}</p>" for text in (self._answer, *self._other_reasons())]
        parts += [table.as_html() for table in self.tables]
        parts += [picture_as_html(png, text) for text, png in self.pictures.items()]
        return "".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Without tables and pictures, which show what the facts have."""
        said = {"question": self.question, "verdict": self.verdict, "sentence": self.sentence}
        return said | {"reasons": [*self.reasons]} | dict(self.facts)

    def write(self, path: Path) -> None:
        """Write `path`, a .json, and the same as Markdown beside it."""
        write_json(path, self.as_json())
        title = f"{self.question}: {self.verdict}" if self.verdict else self.question
        write_text(path.with_suffix(".md"), f"# {in_markdown(title)}\n\n{self.as_markdown()}")

    @property
    def _answer(self) -> str:
        return f"{self.verdict.upper()}: {self.sentence}" if self.verdict else self.sentence

    def _other_reasons(self) -> list[str]:
        """The reasons that the sentence does not give already."""
        return [reason for reason in self.reasons if reason not in self.sentence]


class Answer:
    """Base class of results that terminals and notebooks show as their report."""

    def report(self) -> Report:
        """The answer, for whoever shows it."""
        raise NotImplementedError("a subclass gives its report")

    def __repr__(self) -> str:
        return self.report().as_text()

    def _repr_html_(self) -> str:
        return self.report().as_html()


def picture_as_html(png: bytes, text: str) -> str:
    """A PNG in the page itself, small ones enlarged; `text`: for those who do not see it."""
    data = base64.b64encode(png).decode()
    style = "min-width: 24em; image-rendering: pixelated"
    return f'<img src="data:image/png;base64,{data}" style="{style}" alt="{html.escape(text)}">'


def in_markdown(text: object) -> str:
    """Text of users, which may hold anything, as plain text on one line: no tags, links, pictures, headings
    or table cells of its own, nothing that commands a terminal."""
    plain = html.escape(printable(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", plain)
