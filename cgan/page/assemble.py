"""One HTML file out of a template, its data and scripts. It requests nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cgan.base.report import Table, cell_text
from cgan.base.text import percent
from cgan.drawing.class_names import Classes, names_in
from cgan.page.weights import pack_generator

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
    where no browser runs it, some of the service's drawings."""
    data, plays = play_data(generator), generator.model.runs_in_browser
    shown = {"quality": quality, "named": named, "caution": generator.model.kind.caution}
    shown["query"] = urlencode({"text": data["examples"][0], "seed": 0})
    return document("service.html", PLAY_SCRIPTS if plays else (), data, plays=plays, **shown)


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
        "architecture": asdict(generator.model.architecture),
        "names": names,
        "between": between,
        "labels": classes.table,
        "joinsDigits": classes.joins_digits,
        "hint": classes.listed(),
        "examples": list(dict.fromkeys(texts)),
        **(pack_generator(generator.model) if generator.model.runs_in_browser else {}),
    }


def document(template: str, scripts: Iterable[str], data: Mapping[str, Any], **shown: Any) -> str:
    """The text of a page. The scripts read `data` as JSON, the template `shown`: strings in both are text."""
    environment = Environment(
        loader=FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"number": cell_text, "percent": percent}
    environment.globals["table"] = lambda *parts: Table(*parts).as_html()
    text = environment.get_template(template).render(shown, data=data, script=join_modules(scripts))
    return text.encode(errors="replace").decode()  # half a character: UTF-8 has none


def join_modules(scripts: Iterable[str]) -> str:
    """The text of several modules as one: they share a scope, so imports between them fall away."""
    text = "\n".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    return re.sub(r"^(import [^;]*;\n|export )", "", text, flags=re.MULTILINE)
