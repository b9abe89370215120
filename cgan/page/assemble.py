"""One HTML file out of a template, its data and scripts. It requests nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cgan.drawing.class_names import names_in
from cgan.drawing.generator import MAX_ANSWER_S
from cgan.page.weights import pack_generator
from cgan.text import percent

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator

PAGE_FOLDER = Path(__file__).parent  # of templates, scripts and styles
# In the order in which they are evaluated: a file imports only from those before it.
PLAY_SCRIPTS = (
    "page_data.js",
    "play_text.js",
    "generator.js",
    "play_state.js",
    "play_pictures.js",
    "play_latents.js",
    "play.js",
)
GALLERY_SCRIPTS = ("page_data.js", "play_text.js", "gallery.js")
ASK_SCRIPTS = ("ask.js",)
NUMBERS_SCRIPTS = ("folds.js", "previews.js", "charts.js")
MAX_EXAMPLE_CLASSES = 20


def play_page(generator: Generator, quality: str, named: str) -> str:
    """A page to play with the generator that `cgan serve` has, with how good it is and what it is called;
    where it is too slow for a browser, one that asks the service."""
    query = urlencode({"text": examples(generator)[0], "seed": 0})
    shown = {"quality": quality, "named": named, "query": query}
    data = play_data(generator)
    if runs_in_page(generator):
        return document("play_page.html", PLAY_SCRIPTS, data, **shown)
    names, most = generator.class_names, generator.most_in(MAX_ANSWER_S)
    limits = {"names": names, "caution": generator.caution, "most": most}
    return document("ask_page.html", ASK_SCRIPTS, data, **shown, **limits)


def runs_in_page(generator: Generator) -> bool:
    """Does a browser draw with it? Else the page shows drawings that were made before."""
    return not generator.model.seconds_per_drawing


def play_data(generator: Generator) -> dict[str, Any]:
    """The facts of the generator that the scripts read."""
    return {
        "architecture": generator.architecture,
        "class_names": names_in(generator.facts, generator.classes),
        **(pack_generator(generator) if runs_in_page(generator) else {}),
        "examples": examples(generator),
    }


def examples(generator: Generator) -> list[str]:
    """Texts to draw; the page opens with the first."""
    names = generator.class_names
    digits = names == [str(label) for label in range(min(10, len(names)))]
    separator = "" if digits else ", "
    first, many, last = names[:4], names[:MAX_EXAMPLE_CLASSES], names[-4:][::-1]
    texts = [separator.join(some) for some in (first, many, last)]
    if digits and len(names) == 10:
        texts = ["2024", "31415926", "0123456789"]
    return list(dict.fromkeys(texts))


def document(template: str, scripts: Iterable[str], data: Mapping[str, Any], **shown: Any) -> str:
    """The text of a page. The scripts read `data` as JSON, the template shows `shown`. Strings in
    both are text, neither markup nor script."""
    page = _environment().get_template(template)
    text = page.render(finite(shown), data=finite(data), script=join_modules(scripts))
    return text.encode(errors="replace").decode()  # half a character: UTF-8 has none


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"number": format_number, "percent": percent}
    return environment


def format_number(value: float | None) -> str:
    """Three significant digits and no exponent, whole numbers whole; – for none."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def finite(data: Any) -> Any:
    """The data with None for numbers that JSON cannot hold, NaN and infinities; dataclasses as mappings."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if is_dataclass(data):
        data = vars(data)
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def join_modules(scripts: Iterable[str]) -> str:
    """The text of several modules as one: they share a scope, so imports between them fall away."""
    text = "\n".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    return re.sub(r"^(import [^;]*;\n|export )", "", text, flags=re.MULTILINE)
