"""params.yaml → `Params`, or one message that names every problem in it.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.sections import Dimension, Params, TrainChoices, names_of_params

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a section",
    "null": "null",
}
LIMITS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "minLength": "of length at least",
    "maxLength": "of length at most",
    "minItems": "with at least",
    "minProperties": "with at least",
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
            f"{name}: expected sections with keys, found {_value_in_words(document)}. Restore it from git: "
            f"`git checkout {name}`."
        )
    try:
        params = Params.model_validate(document)
        problems = space_problems(params)
    except ValidationError as error:
        problems = [_problem_in_words(problem) for problem in _by_place(error)]
    if len(problems) > 1:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ParamsError(f"{name}: {len(problems):,} problems:{lines}")
    if problems:
        raise ParamsError(f"{name}: {problems[0]}")
    return params


def _by_place(error: ValidationError) -> list[dict[str, Any]]:
    """Its problems, one a place: what is neither a number nor `auto` has a problem with each."""
    places: dict[tuple[Any, ...], dict[str, Any]] = {}
    for problem in error.errors(include_url=False):
        place = problem["loc"][: 4 if problem["loc"][:2] == ("sweep", "space") else 2]
        place += tuple(part for part in problem["loc"][2:] if isinstance(part, int))  # of a list
        places.setdefault(place, {**problem, "loc": place})
    return list(places.values())


# --- the space of a sweep -----------------------------------------------------------------------

NOT_SEARCHED = ("seed", "probes")  # the one is luck, by the other trials are compared


def space_problems(params: Params) -> list[str]:
    """What is wrong with `sweep.space`, measured by each param's own type and limits."""
    document = params.model_dump(by_alias=True)
    problems = []
    for key, dimension in params.sweep.space.items():
        name = key.removeprefix("train.")
        if key not in names_of_params():
            suggested = _suggestion(f"train.{key.rpartition('.')[2]}")
            problems.append(f"`sweep.space.{key}`: there is no such param; {suggested}")
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
                    # How params go together is looked at over the whole space, before a sweep starts.
                    problems += [
                        f"`sweep.space.{key}`: {_problem_in_words(problem)}"
                        for problem in _by_place(error)
                        if problem["loc"] == ("train", name)
                    ]
    return problems


def is_whole(key: str) -> bool:
    """Does `train.KEY` take whole numbers only?"""
    return "float" not in str(TrainChoices.model_fields[key.removeprefix("train.")].annotation)


# --- the words for a problem: pydantic's, with the value that was found and a way out -----------


def _problem_in_words(problem: dict[str, Any]) -> str:
    name = ".".join(map(str, problem["loc"]))
    kind, found = problem["type"], problem["input"]
    if kind == "value_error":
        error = str(problem["ctx"]["error"])
        return f"`{name}`: {error}." if name else error
    if kind == "extra_forbidden":
        return f"unknown key `{name}`; {_suggestion(name)}"
    if kind == "missing":
        return f"`{name}` is missing. Add it, or restore params.yaml from git."
    expected = _expected(problem["loc"])
    what = f" should be {expected}" if expected else f": {problem['msg']}"
    text = f"`{name}`{what}, got {_value_in_words(found)}."
    with contextlib.suppress(ValueError):
        if isinstance(found, str) and kind in ("float_type", "int_type") and float(found):
            text += " Write it without quotes."
    if kind == "string_type" and isinstance(found, int | float):
        text += f" Put it in quotes: '{found}'."
    return text


def _expected(place: tuple[Any, ...]) -> str:
    """The type and limits of a param in words, such as `a number above 0`, from its JSON schema."""
    schema = root = Params.model_json_schema()
    for part in place:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}
    return _schema_in_words(schema)


def _schema_in_words(schema: dict[str, Any]) -> str:
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(map(_schema_in_words, schema["anyOf"]))
    if options := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return " or ".join(f"`{option}`" for option in options)
    words = KINDS.get(schema.get("type", "object" if "$ref" in schema else ""), "")
    limits = [f"{word} {schema[key]}" for key, word in LIMITS.items() if key in schema]
    return " ".join([words, " and ".join(limits)]).strip()


def _suggestion(name: str) -> str:
    """The key that was probably meant by this one, which does not exist."""
    prefix, _, key = name.rpartition(".")
    prefix += "." * bool(prefix)
    names = names_of_params()
    keys = {n.removeprefix(prefix).split(".")[0]: None for n in names if n.startswith(prefix)}
    if close := difflib.get_close_matches(key, keys, n=1, cutoff=0.5):
        return f"did you mean `{prefix}{close[0]}`?"
    if elsewhere := [each for each in names if each.rpartition(".")[2] == key]:
        return f"did you mean `{elsewhere[0]}`?"
    return "valid here: " + ", ".join(f"`{key}`" for key in keys or Dimension.model_fields) + "."


def _value_in_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"the text {value[:80]!r}"
    return str(value).lower()[:80] if isinstance(value, bool) else str(value)[:80]
