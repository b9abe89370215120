"""How a notebook shows our objects: tables and pictures as HTML, everything in them escaped; and a bar."""

import base64
import html
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence


def table(rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table, the header first."""
    # A number and its sign stay on one line.
    head, *body = (
        [html.escape(str(cell)).replace(" %", "\u00a0%") for cell in row] for row in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
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


def answer(
    sentence: str, reasons: Iterable[str], tables: Mapping[str, Iterable[Sequence[object]]]
) -> str:
    """Paragraphs, and tables with their headings as captions."""
    shown = [paragraph(text) for text in (sentence, *reasons)]
    return "".join(shown + [table(rows, heading) for heading, rows in tables.items()])


def progress_bar(what: str, steps: range, images_a_step: int = 0) -> Iterator[int]:
    """Yield the steps beside a bar, in a terminal or a notebook; in neither, without one."""
    with warnings.catch_warnings(action="ignore"):  # without ipywidgets there is a bar of text
        from tqdm.auto import tqdm
    each = images_a_step or 1
    with tqdm(
        desc=what,
        total=steps.stop * each,
        initial=steps.start * each,
        unit=" images" if images_a_step else " steps",
        unit_scale=True,
        leave=False,
        disable=not (in_notebook() or sys.stderr.isatty()),
    ) as bar:
        for step in steps:
            yield step
            bar.update(each)


def in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
