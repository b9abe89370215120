"""One HTML file out of a template, its data and scripts. It requests nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cgan.drawing.class_names import Classes, names_in
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
GALLERY_SCRIPTS = ("page_data.js", "gallery.js")
MAX_EXAMPLE_CLASSES = 20


def play_page(generator: Generator, quality: str, named: str) -> str:
    """A page to play with the generator that `cgan serve` has, with how good it is and what it is called;
    where it is too slow for a browser, some of the service's drawings."""
    data = play_data(generator)
    shown = {"quality": quality, "named": named, "caution": generator.caution}
    shown["query"] = urlencode({"text": data["examples"][0], "seed": 0})
    scripts = PLAY_SCRIPTS if runs_in_page(generator) else ()
    return document("service.html", scripts, data, plays=runs_in_page(generator), **shown)


def runs_in_page(generator: Generator) -> bool:
    """Does a browser draw with it? Else the page shows drawings that were made before."""
    return not generator.model.seconds_per_drawing


def play_data(generator: Generator) -> dict[str, Any]:
    """The facts of the generator that the scripts read."""
    names = generator.class_names
    classes = Classes(generator.classes, names_in(generator.facts, generator.classes))
    has_digits = names == [str(label) for label in range(min(10, len(names)))]
    between = "" if has_digits else ", "
    texts = [between.join(names[:4]), between.join(names[:MAX_EXAMPLE_CLASSES])]
    if has_digits and len(names) == 10:
        texts = ["2024", "31415926", "0123456789"]
    return {
        "architecture": generator.architecture,
        "names": names,
        "between": between,
        "labels": classes.table,
        "spelled": classes.spelled,
        "hint": classes.listed(),
        "examples": list(dict.fromkeys(texts)),
        **(pack_generator(generator) if runs_in_page(generator) else {}),
    }


def document(template: str, scripts: Iterable[str], data: Mapping[str, Any], **shown: Any) -> str:
    """The text of a page. The scripts read `data` as JSON, the template shows `shown`. Strings in
    both are text, neither markup nor script."""
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
    text = environment.get_template(template).render(shown, data=data, script=join_modules(scripts))
    return text.encode(errors="replace").decode()  # half a character: UTF-8 has none


def format_number(value: float | None) -> str:
    """Three significant digits and no exponent, whole numbers whole; – for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def join_modules(scripts: Iterable[str]) -> str:
    """The text of several modules as one: they share a scope, so imports between them fall away."""
    text = "\n".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    return re.sub(r"^(import [^;]*;\n|export )", "", text, flags=re.MULTILINE)
