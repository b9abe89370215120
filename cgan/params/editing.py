"""Presets: files of `train` params under presets/, written into params.yaml on request.

params.yaml stays the only truth: after `cgan preset fast` it holds every value in clear, git and DVC
show what changed, and nothing is looked up at run time.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from cgan.errors import ParamsError
from cgan.files import write_text
from cgan.params.sections import TrainParams, load_params, read_yaml

FOLDER = Path("presets")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def values(name: str) -> dict[str, Any]:
    """All `train` params that presets govern, as preset `name` sets them.

    Raises ParamsError on an unknown preset, or on a key that `train` doesn't have.
    """
    if name not in names():
        raise ParamsError(f"no preset `{name}` under {FOLDER}/. There are: {', '.join(names())}.")
    chosen = {**read_yaml(FOLDER / "default.yaml"), **read_yaml(FOLDER / f"{name}.yaml")}
    if unknown := chosen.keys() - TrainParams.model_fields.keys():
        raise ParamsError(f"{FOLDER}/{name}.yaml: `train` has no key `{min(unknown)}`.")
    return chosen


def apply(name: str, path: Path = Path("params.yaml")) -> dict[str, tuple[Any, Any]]:
    """Write the preset into `path`, comments kept → {key: (before, after)} of what changed."""
    from ruamel.yaml import YAML

    chosen = values(name)
    load_params(path)  # say what is wrong with it before it is rewritten
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    document = yaml.load(path.read_text())
    train = document["train"]
    changed = {key: (train[key], new) for key, new in chosen.items() if train[key] != new}
    for key, (_, new) in changed.items():
        train[key] = new
    text = io.StringIO()
    yaml.dump(document, text)
    if changed:
        write_text(path, text.getvalue())
        load_params(path)
    return changed
