"""The one writer of params.yaml: single values, and presets, which are files of `train` params.

params.yaml stays the only truth: after `cgan preset fast` it holds every value in clear, git and DVC
show what changed, and nothing is looked up at run time.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from cgan.errors import ParamsError
from cgan.files import write_text
from cgan.params.reading import check_params, load_params, parse_yaml, read_text, read_yaml
from cgan.params.sections import TrainChoices, flatten

PRESETS = Path("presets")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_params(name: str) -> dict[str, Any]:
    """All `train` params that presets govern, as this one sets them. Raises ParamsError on an unknown one."""
    if name not in preset_names():
        names = ", ".join(preset_names())
        raise ParamsError(f"no preset `{name}` under {PRESETS}/. There are: {names}.")
    return {**read_yaml(PRESETS / "default.yaml"), **read_yaml(PRESETS / f"{name}.yaml")}


def nearest_preset(train: TrainChoices) -> tuple[str, list[str]]:
    """The preset that `train` is most like, and the params in which it differs; "" outside of a project."""
    now = train.model_dump()
    differing = {
        name: [key for key, value in preset_params(name).items() if now.get(key) != value]
        for name in preset_names()
    }
    nearest = min(differing, key=lambda name: (len(differing[name]), name != "default"), default="")
    return nearest, differing.get(nearest, [])


def recipe_in_words(train: TrainChoices) -> str:
    """The preset that `train` holds, such as `fast`; in front of it the first values that differ from the
    most similar one, such as `lr 0.001 · default`."""
    nearest, differing = nearest_preset(train)
    if not nearest:  # outside of a project
        return f"{train.generator} {train.total_kimg} kimg"
    changed = [f"{key} {getattr(train, key)}" for key in differing[:2]]
    if len(differing) > 2:
        changed.append(f"{len(differing) - 2} more")
    return " · ".join(filter(None, [", ".join(changed), nearest]))


def apply_preset(name: str, path: Path | str = "params.yaml") -> dict[str, tuple[Any, Any]]:
    """Write preset `name` into `path` as `set_params` does → {"train.lr": (before, after)}."""
    preset_params(name)  # is there such a preset?
    # As the files write it: 4.5e-3, not 0.0045.
    default, values = (_layout().load(PRESETS / f"{preset}.yaml") for preset in ("default", name))
    return set_params({"train": {**default, **values}}, path, f"preset {name}")


def set_params(
    changes: Mapping[str, Any], path: Path | str = "params.yaml", source: str = "overrides"
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, atomically → {"train.lr": (before, after)} of what changed.

    `changes` is flat (`{"train.lr": 0.001}`) or nested. Comments and layout stay. Nothing is written unless
    the result passes every check of `cgan.params.reading`; raises ParamsError that lists all problems, of
    `source`.
    """
    before = flatten(load_params(path))
    wanted = flatten(dict(changes))
    changed = {key: value for key, value in wanted.items() if before.get(key, ...) != value}
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
