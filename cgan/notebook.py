"""How a notebook shows our objects: tables and pictures as HTML, everything in them escaped."""

import base64
import html
from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table, the header first."""
    head, *body = ([html.escape(str(cell)) for cell in row] for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" * bool(caption)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return f"<table>{title}{''.join(lines)}</table>"


def picture(png: bytes, text: str) -> str:
    """A PNG in the page itself, small ones enlarged; `text`: for those who do not see it."""
    data = base64.b64encode(png).decode()
    style = "min-width: 24em; image-rendering: pixelated"
    return f'<img src="data:image/png;base64,{data}" style="{style}" alt="{html.escape(text)}">'


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
