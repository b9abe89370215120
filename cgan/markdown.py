"""Foreign text in Markdown: names, reasons and tags that a person or a file brought along."""

from __future__ import annotations

import html
import re


def in_markdown(text: object) -> str:
    """As plain text on one line: no tags, links, pictures, headings or table cells of its own."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", plain)


def spaced(markdown: str) -> str:
    """Air between the columns of tables: MLflow's pages set them without any."""
    lines = [
        line.replace("| ", "| &ensp;") if line.startswith("| ") else line
        for line in markdown.split("\n")
    ]
    return "\n".join(lines)
