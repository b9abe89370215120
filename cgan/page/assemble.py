"""One HTML file out of its parts: template, style, sections, data, weights, scripts. It requests nothing."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import TYPE_CHECKING, Any

from cgan.page.weights import layer_facts, packed
from cgan.project import PACKAGE
from cgan.serving.class_names import names_in

if TYPE_CHECKING:
    from cgan.serving.generator import Generator

FOLDER = PACKAGE / "page"
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: UTF-8 has none
_UNSAFE = re.compile("[<\u2028\u2029]")
# In the order in which they are evaluated: a file imports only from those before it.
PLAY = (
    "generator.js",
    "play_random.js",
    "play_text.js",
    "play_state.js",
    "play_pictures.js",
    "play_work.js",
    "play_samples.js",
    "play.js",
)


def play_page(generator: Generator) -> str:
    """A page of the first half alone: the generator, to play with."""
    return document("cgan", ["play"], PLAY, play_data(generator), packed(generator))


def play_data(generator: Generator) -> dict[str, Any]:
    """What the first half knows of its generator."""
    return {
        "architecture": generator.network.architecture.to_json(),
        "digest": generator.facts["digest"],
        "class_names": names_in(generator.facts, generator.classes),
        "layers": layer_facts(generator),
    }


def document(
    title: str,
    sections: Sequence[str],
    scripts: Iterable[str],
    data: Mapping[str, Any],
    weights: bytes | None = None,
    charts: str = "",
) -> str:
    """The file. `sections` are names of .html files here, which may have a .css beside them, `data` is what
    the scripts read as JSON, `charts` what `page.charts.bundle` made.

    Whatever stands in `title` and `data` is text: it cannot become markup or script.
    """
    return Template(_asset("template.html")).substitute(
        title=html.escape(_SURROGATE.sub("\ufffd", title)),
        style="\n".join(_asset(f"{name}.css") for name in ["page", *sections] if _has_style(name)),
        body="\n".join(_asset(f"{name}.html") for name in sections),
        data=as_script_text(data),
        weights=base64.b64encode(weights or b"").decode(),
        charts=charts,
        script=joined(scripts),
    )


def as_script_text(data: Any) -> str:
    """JSON that cannot end the <script> that it stands in, nor break its encoding."""
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = _SURROGATE.sub("\ufffd", text)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def finite(data: Any) -> Any:
    """The same, with None for numbers that JSON cannot hold: NaN and infinities."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def joined(scripts: Iterable[str]) -> str:
    """Modules → one: they share a scope, so imports between them fall away."""
    text = "\n".join(_asset(name) for name in scripts)
    return re.sub(r"^(import [^;]*;\n|export )", "", text, flags=re.MULTILINE)


def _has_style(name: str) -> bool:
    return (FOLDER / f"{name}.css").is_file()


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
