"""params.yaml → `Params`. `cgan.params.checks` says what is wrong with its values.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.checks import check_params
from cgan.params.sections import Params

MAX_BYTES = 1_000_000  # ruamel.yaml takes a second for 1.5 MB


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    return check_params(read_yaml(path), path)


def read_yaml(path: Path | str) -> Any:
    """The YAML document in `path`. Raises ParamsError with line and column where it is not valid."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path | str) -> str:
    """The text of a file. Raises ParamsError when it is missing, larger than 1 MB or not UTF-8."""
    try:
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise ParamsError(
                f"{path}: {size / 1e6:,.1f} MB, and 1 MB is read at most. Restore it from git: "
                f"`git checkout {path}`."
            )
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: not found in {Path.cwd()}. Run from the project's top folder."
        ) from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not UTF-8 text. Save it as UTF-8.") from None


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
