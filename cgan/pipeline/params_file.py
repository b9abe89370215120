"""params.yaml, read into `Params`, and written: single values, and presets.

`cgan.params.checks` says what is wrong with its values. YAML is read as DVC reads it: version 1.2, by
ruamel.yaml. Who overrides a value (`dvc exp run -S`, a flow, a sweep) rewrites it before a stage reads it.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cgan.base.errors import ParamsError
from cgan.base.files import write_text
from cgan.params.checks import check_params
from cgan.params.presets import preset_params
from cgan.params.sections import Params, flatten


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    return check_params(read_yaml(path), path)


def read_yaml(path: Path | str) -> Any:
    """The YAML document in `path`. Raises ParamsError with line and column where it is not valid."""
    return parse_yaml(_read_text(path), path)


def parse_yaml(text: str, name: Path | str) -> Any:
    """The YAML document in `text`; `name` stands for the file in the message of a ParamsError."""
    try:
        # Plain values: no tags of other types, no duplicate keys.
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # ruamel.yaml lets through whatever it stumbles over
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise ParamsError(f"{name}{where}: not valid YAML: {problem}.") from None


def apply_preset(name: str, path: Path | str = "params.yaml") -> dict[str, tuple[Any, Any]]:
    """Write preset `name` into `path` as `set_params` does → {"train.lr": (before, after)}."""
    return set_params({"train": preset_params(name)}, path, f"preset {name}")


def set_params(
    changes: Mapping[str, Any], path: Path | str = "params.yaml", source: str = "overrides"
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, atomically → {"train.lr": (before, after)} of what changed.

    `changes` is flat (`{"train.lr": 0.001}`) or nested. Comments and layout stay. Nothing is written unless
    the result passes every check; raises ParamsError that lists all problems, of `source`. A key that the
    file lacked had its default before.
    """
    params = load_params(path)
    in_file, before = flatten(params), flatten(params.model_dump(by_alias=True))
    changed = {
        key: value
        for key, value in flatten(dict(changes)).items()
        if key not in in_file or in_file[key] != value
    }
    yaml, result = YAML(), io.StringIO()  # which keeps comments, quotes and the form of numbers
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(_read_text(path))
    for key, value in changed.items():
        section, _, name = key.rpartition(".")
        (document.setdefault(section, {}) if section else document)[name] = value
    yaml.dump(document, result)
    check_params(parse_yaml(result.getvalue(), source), source)
    if changed:
        write_text(path, result.getvalue())
    return {key: (before.get(key), value) for key, value in changed.items()}


def _read_text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: not found in {Path.cwd()}. Run in a project's folder."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read ({error}).") from None
