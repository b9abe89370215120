"""The one writer of params.yaml: single values, and presets, which are files of `train` params.

params.yaml stays the only truth: after `cgan preset fast` it holds every value in clear, git and DVC
show what changed, and nothing is looked up at run time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node

from cgan.errors import ParamsError
from cgan.files import write_text
from cgan.params.reading import (
    check_params,
    load_params,
    parse_yaml,
    read_text,
    read_yaml,
    yaml_reader,
)
from cgan.params.sections import TrainChoices, flatten

PRESETS = Path("presets")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_params(name: str) -> dict[str, Any]:
    """All `train` params that presets govern, as preset `name` sets them.

    Raises ParamsError on an unknown preset, or on a key that `train` doesn't have.
    """
    if name not in preset_names():
        there = ", ".join(preset_names())
        raise ParamsError(f"no preset `{name}` under {PRESETS}/. There are: {there}.")
    chosen = {**read_yaml(PRESETS / "default.yaml"), **read_yaml(PRESETS / f"{name}.yaml")}
    if unknown := chosen.keys() - TrainChoices.model_fields.keys():
        raise ParamsError(f"{PRESETS}/{name}.yaml: `train` has no key `{min(unknown)}`.")
    return chosen


def recipe_in_words(train: TrainChoices) -> str:
    """The preset that `train` holds, such as `fast`; in front of it the first values that differ from the
    most similar one, such as `lr 0.001 · default`."""
    nearest, differing = nearest_preset(train)
    if not nearest:  # outside of a project
        return f"{train.generator} {train.total_kimg} kimg"
    changed = [f"{key} {getattr(train, key)}" for key in differing]
    more = [f"{len(changed) - 2} more"] if len(changed) > 2 else []
    return " · ".join(filter(None, [", ".join(changed[:2] + more), nearest]))


def nearest_preset(train: TrainChoices) -> tuple[str, list[str]]:
    """The preset that `train` is most like, and the params in which it differs; "" outside of a project."""
    differing: dict[str, list[str]] = {}
    for name in preset_names():
        with contextlib.suppress(ParamsError):
            wanted = preset_params(name).items()
            differing[name] = [key for key, value in wanted if getattr(train, key) != value]
    if not differing:
        return "", []
    nearest = min(differing, key=lambda name: (len(differing[name]), name != "default"))
    return nearest, differing[nearest]


def apply_preset(name: str, path: Path | str = "params.yaml") -> dict[str, tuple[Any, Any]]:
    """Write preset `name` into `path` as `set_params` does → {"train.lr": (before, after)}."""
    return set_params({"train": preset_params(name)}, path, f"preset {name}")


def set_params(
    changes: Mapping[str, Any], path: Path | str = "params.yaml", source: str = "overrides"
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, atomically → {"train.lr": (before, after)} of what changed.

    `changes` is flat (`{"train.lr": 0.001}`) or nested. Only the values' own characters are replaced:
    comments and layout stay. Nothing is written unless the result passes every check of
    `cgan.params.reading`; raises ParamsError that lists all problems, of `source`.
    """
    before = flatten(load_params(path))
    wanted = flatten(dict(changes))
    text = read_text(path)
    document = parse_yaml(text, path)
    for key, value in wanted.items():
        *sections, name = key.split(".")
        place = document
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[name] = value
    after = check_params(document, source)

    changed = {key: (before[key], value) for key, value in wanted.items() if value != before[key]}
    if not changed:
        return {}
    spans = _value_spans(text, yaml_reader().compose(text))
    known = [(*spans[key], key) for key in changed if key in spans]
    for start, end, key in sorted(known, reverse=True):
        text = text[:start] + _with_value(text[start:end], _in_yaml(wanted[key]), text[end:])
    try:
        only_these = check_params(parse_yaml(text, path), path) == after
    except ParamsError:
        only_these = False
    if not only_these:
        raise ParamsError(
            f"{path}: {', '.join(changed)} cannot be changed alone, because of YAML anchors, aliases, merge "
            "keys or directives. Write the values out instead."
        )
    write_text(path, text)
    return changed


def _value_spans(text: str, node: Node, prefix: str = "") -> dict[str, tuple[int, int]]:
    """Where each value stands in the text, by dotted key; after the colon where there is none."""
    spans: dict[str, tuple[int, int]] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        start, end = value.start_mark.index, value.end_mark.index
        if isinstance(value, MappingNode):
            spans |= _value_spans(text, value, f"{name}.")
        elif start == end:
            colon = text.index(":", key.end_mark.index) + 1
            spans[name] = (colon, colon)
        else:
            spans[name] = (start, end)
    return spans


def _with_value(old: str, new: str, rest: str) -> str:
    """`rest` of the file with `new` before it in the place of `old`; a comment stays in its column."""
    space = "" if old else " "  # `key:` with nothing after it
    after = rest.lstrip(" ")
    if after.startswith("#"):
        gap = len(old) + len(rest) - len(after) - len(space + new)
        return space + new + " " * max(1, gap) + after
    return space + new + rest


def _in_yaml(value: Any) -> str:
    """The value in YAML, on one line: a text as it is where that is plainly a text, else JSON."""
    plain = isinstance(value, str) and re.fullmatch(r"[\w./][\w./-]*", value)
    if plain and parse_yaml(value, "") == value:
        return str(value)
    return json.dumps(value, ensure_ascii=False)
