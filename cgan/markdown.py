"""Foreign text in Markdown: names, reasons and tags that a person or a file brought along."""

from __future__ import annotations

import html
import re


def in_markdown(text: object) -> str:
    """As plain text on one line: no tags, links, pictures, headings or table cells of its own."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", plain)
