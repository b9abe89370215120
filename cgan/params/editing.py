"""The one writer of params.yaml: single values, and presets.

After `cgan preset fast` it holds every value in clear; git and DVC show what changed.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from cgan.files import write_text
from cgan.params.checks import check_params
from cgan.params.presets import preset_params
from cgan.params.reading import load_params, parse_yaml, read_text
from cgan.params.sections import flatten


def apply_preset(name: str, path: Path | str = "params.yaml") -> dict[str, tuple[Any, Any]]:
    """Write preset `name` into `path` as `set_params` does → {"train.lr": (before, after)}."""
    return set_params({"train": preset_params(name)}, path, f"preset {name}")


def set_params(
    changes: Mapping[str, Any], path: Path | str = "params.yaml", source: str = "overrides"
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, atomically → {"train.lr": (before, after)} of what changed.

    `changes` is flat (`{"train.lr": 0.001}`) or nested. Comments and layout stay. Nothing is written unless
    the result passes every check of `cgan.params.checks`; raises ParamsError that lists all problems, of
    `source`. A key that the file lacked had its default before.
    """
    params = load_params(path)
    in_file, defaults = flatten(params), flatten(params.model_dump(by_alias=True))
    wanted = flatten(dict(changes))
    changed = {key: value for key, value in wanted.items() if in_file.get(key, ...) != value}
    document = _layout().load(read_text(path))
    for key, value in changed.items():
        section, dot, name = key.partition(".")
        place = document.setdefault(section, {}) if dot else document
        place[name or section] = value
    result = io.StringIO()
    _layout().dump(document, result)
    check_params(parse_yaml(result.getvalue(), source), source)
    if changed:
        write_text(path, result.getvalue())
    return {key: (defaults.get(key), value) for key, value in changed.items()}


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
