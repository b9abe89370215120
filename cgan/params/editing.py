"""The one writer of params.yaml: single values, and presets, which are files of `train` params.

params.yaml stays the only truth: after `cgan preset fast` it holds every value in clear, git and DVC
show what changed, and nothing is looked up at run time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from cgan.errors import ParamsError
from cgan.files import write_text
from cgan.params.reading import (
    check_params,
    load_params,
    parse_yaml,
    read_text,
    read_yaml,
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
    preset_params(name)  # is there such a preset, with known keys only?
    # As the files write it: 4.5e-3, not 0.0045.
    default, own = (_layout().load(PRESETS / f"{each}.yaml") for each in ("default", name))
    written = {**default, **own}
    return set_params({"train": written}, path, f"preset {name}")


def set_params(
    changes: Mapping[str, Any], path: Path | str = "params.yaml", source: str = "overrides"
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, atomically → {"train.lr": (before, after)} of what changed.

    `changes` is flat (`{"train.lr": 0.001}`) or nested. Comments and layout stay. Nothing is written unless
    the result passes every check of `cgan.params.reading`; raises ParamsError that lists all problems, of
    `source`.
    """
    before = flatten(load_params(path))
    changed: dict[str, Any] = {
        key: value
        for key, value in flatten(dict(changes)).items()
        if key not in before or before[key] != value
    }
    document = _layout().load(read_text(path))
    for key, value in changed.items():
        *sections, name = key.split(".")
        place = document
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[name] = _on_one_line(value)
    result = io.StringIO()
    _layout().dump(document, result)
    check_params(parse_yaml(result.getvalue(), source), source)
    if changed:
        write_text(path, result.getvalue())
    return {key: (before[key], value) for key, value in changed.items()}


def _layout() -> YAML:
    """ruamel.yaml's reader and writer that keeps comments, quotes and the form of numbers."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.Representer = _Representer
    return yaml


class _Representer(RoundTripRepresenter):
    """Writes `null`, which ruamel.yaml leaves out."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _on_one_line(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    found = CommentedSeq(value)
    found.fa.set_flow_style()
    return found
