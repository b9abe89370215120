"""User-supplied text in Markdown and in tables: names, reasons and tags, which may hold anything."""

import html
import re
from collections.abc import Iterable, Sequence


def in_markdown(text: object) -> str:
    """As plain text on one line: no tags, links, pictures, headings or table cells of its own."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", plain)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], numbers: int = 0) -> str:
    """A table; after the first column come `numbers`, on the right."""
    marks = ["---", *["---:"] * numbers, *["---"] * (len(head) - 1 - numbers)]
    lines = [[in_markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [head, marks, *lines])
