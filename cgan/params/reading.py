"""params.yaml → `Params`, or one message that names every problem in it.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

import difflib
import reprlib
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.sections import Params, names_of_params

MAX_BYTES = 1_000_000  # ruamel.yaml takes a second for 1.5 MB
ELSEWHERE = {"learning_rate": "lr", "epochs": "total_kimg", "gpu": "device"}  # others' names


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


def check_params(document: Any, name: Path | str) -> Params:
    """The params in a YAML document. Raises ParamsError that lists all problems at once."""
    if not isinstance(document, dict):
        raise ParamsError(
            f"{name}: expected sections with keys, found {reprlib.repr(document)}. Restore it from git: "
            f"`git checkout {name}`."
        )
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        # What is neither a number nor `auto` has two errors of one key, one after the other.
        by_key = groupby(error.errors(include_url=False), lambda problem: _key(problem["loc"]))
        problems = [_in_words(key, list(errors)) for key, errors in by_key]
    if len(problems) == 1:
        raise ParamsError(f"{name}: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ParamsError(f"{name}: {len(problems):,} problems:{lines}")


def _key(place: tuple[int | str, ...]) -> str:
    """`train.lr`, `validate.class_names.3`, `sweep.space.train.lr.low`: pydantic's place without the types
    among which a value has to be."""
    depth = 2
    if place[:2] == ("sweep", "space"):
        place, depth = place[:3] + place[4:], 4
    items = [part for part in place[depth:] if isinstance(part, int)]
    return ".".join(str(part) for part in [*place[:depth], *items] if part != "[key]")


def _in_words(key: str, problems: list[Any]) -> str:
    kind, value = problems[0]["type"], problems[0]["input"]
    if kind == "extra_forbidden":
        return f"unknown key `{key}`; {_suggestion(key)}"
    if kind == "missing":
        return f"`{key}` is missing. Add it, or restore params.yaml from git."
    words = ", or ".join(problem["msg"].removeprefix("Value error, ") for problem in problems)
    if kind != "value_error":  # our own says what was found
        words += f", found {reprlib.repr(value)}"
    return f"`{key}`: {words}." if key else f"{words}."


def _suggestion(key: str) -> str:
    """What was probably meant by a key that does not exist: one of its section, or this one of another."""
    section, _, name = key.rpartition(".")
    names = names_of_params()
    if key in names:  # at the top, as `dvc exp run -S` has it
        return f"write `{name}` under `{section}:`."
    meant = {param.rpartition(".")[2]: param for param in names if param.startswith(f"{section}.")}
    meant |= {word: meant[ours] for word, ours in ELSEWHERE.items() if ours in meant}
    meant = meant or {param.partition(".")[0]: param.partition(".")[0] for param in names}
    for close in difflib.get_close_matches(name, meant, n=1, cutoff=0.5):
        return f"did you mean `{meant[close]}`?"
    others = [param for param in names if param.endswith(f".{name}")]
    return f"did you mean `{others[0]}`?" if others else "remove it."
