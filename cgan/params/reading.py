"""params.yaml → `Params`, or one message that names every problem in it.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.sections import Params, TrainChoices, names_of_params

# What others call a param, for the key that was meant.
ELSEWHERE = {
    "learning_rate": "lr",
    "epochs": "total_kimg",
    "iterations": "total_kimg",
    "gpu": "device",
}


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    return check_params(read_yaml(path), path)


def read_yaml(path: Path | str) -> Any:
    """The YAML document in `path`. Raises ParamsError with line and column where it is not valid."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path | str) -> str:
    """The text of a file. Raises ParamsError when it is missing or not UTF-8."""
    try:
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
    except RecursionError:
        raise ParamsError(f"{name}: nested too deeply. Two levels are enough.") from None
    except Exception as error:  # ruamel.yaml lets through whatever it stumbles over
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise ParamsError(f"{name}{where}: not valid YAML: {problem}.") from None


def check_params(document: Any, name: Path | str) -> Params:
    """The params in a YAML document. Raises ParamsError that lists all problems at once."""
    if not isinstance(document, dict):
        raise ParamsError(
            f"{name}: expected sections with keys, found {_short(document)}. Restore it from git: "
            f"`git checkout {name}`."
        )
    try:
        params = Params.model_validate(document)
        problems = space_problems(params)
    except ValidationError as error:
        problems = list(_in_words(error).values())
    if len(problems) > 1:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ParamsError(f"{name}: {len(problems):,} problems:{lines}")
    if problems:
        raise ParamsError(f"{name}: {problems[0]}")
    return params


# --- the space of a sweep -----------------------------------------------------------------------

NOT_SEARCHED = ("seed", "probes")  # the one is luck, by the other trials are compared


def space_problems(params: Params) -> list[str]:
    """What is wrong with `sweep.space`, measured by each param's own type and limits."""
    document = params.model_dump(by_alias=True)
    problems = []
    for key, dimension in params.sweep.space.items():
        name = key.removeprefix("train.")
        if key not in names_of_params():
            problems.append(f"`sweep.space.{key}`: there is no such param; {_suggestion(key)}")
        elif name == key or name in NOT_SEARCHED:
            problems.append(
                f"`sweep.space.{key}`: only params of `train` can be searched, and of them neither `seed` "
                "nor `probes`. Remove it."
            )
        else:
            for value in dimension.bounds():
                try:
                    Params.model_validate({**document, "train": {**document["train"], name: value}})
                except ValidationError as error:
                    # How params go together, a trial shows.
                    if wrong := _in_words(error).get(key):
                        problems.append(f"`sweep.space.{key}`: {wrong}")
    return problems


def is_whole(key: str) -> bool:
    """Does `train.KEY` take whole numbers only?"""
    return "float" not in str(TrainChoices.model_fields[key.removeprefix("train.")].annotation)


# --- the words for a problem: pydantic's, with the key, the value that was found and a way out ---


def _in_words(error: ValidationError) -> dict[str, str]:
    """By the key: what is wrong with it. What is neither a number nor `auto` has a problem with each."""
    found: dict[str, Mapping[str, Any]] = {}
    words: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        place = problem["loc"][: 4 if problem["loc"][:2] == ("sweep", "space") else 2]
        place += tuple(part for part in problem["loc"][2:] if isinstance(part, int))  # of a list
        key = ".".join(map(str, place))
        found.setdefault(key, problem)
        said = problem["msg"].removeprefix("Value error, ")
        again = key in words and said.removeprefix("Input should be ")
        words.setdefault(key, []).append(again or said)
    return {key: _of_key(key, found[key], ", or ".join(words[key])) for key in found}


def _of_key(key: str, problem: Mapping[str, Any], words: str) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"unknown key `{key}`; {_suggestion(key)}"
    if kind == "missing":
        return f"`{key}` is missing. Add it, or restore params.yaml from git."
    if kind == "value_error":  # our own, which says what was found
        return f"`{key}`: {words}." if key else f"{words}."
    text = f"`{key}`: {words}, found {_short(value)}."
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and kind in ("float_type", "int_type") and float(value):
            text += " Write it without quotes."
    if kind == "string_type" and isinstance(value, int | float):
        text += f" Put it in quotes: '{value}'."
    return text


def _suggestion(key: str) -> str:
    """The key that was probably meant by this one, which does not exist: one of its section, or this one of
    another section."""
    section, _, name = key.rpartition(".")
    names = names_of_params()
    siblings = [each.rpartition(".")[2] for each in names if each.rpartition(".")[0] == section]
    siblings = siblings or sorted({each.partition(".")[0] for each in names})
    meant = siblings + [other for other, ours in ELSEWHERE.items() if ours in siblings]
    if close := difflib.get_close_matches(name, meant, n=1, cutoff=0.5):
        return f"did you mean `{f'{section}.'.lstrip('.')}{ELSEWHERE.get(close[0], close[0])}`?"
    if elsewhere := [each for each in names if each.rpartition(".")[2] == name]:
        return f"did you mean `{elsewhere[0]}`?"
    return f"valid here: {', '.join(f'`{each}`' for each in siblings)}."


def _short(value: Any) -> str:
    """A value as YAML writes it, of whatever size."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else json.dumps(value, default=str, ensure_ascii=True)[:80]
