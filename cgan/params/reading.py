"""params.yaml → `Params`, or one message that names every problem in it.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

from cgan.errors import ParamsError
from cgan.params.sections import Dimension, Params, TrainChoices, flatten_names

MAX_BYTES = 1_000_000
MAX_ALIASES = 20
MAX_SHOWN = 20  # problems told at once
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
}
EXAMPLES = {
    "data.kaggle": "expected a competition such as `digit-recognizer`, or `owner/dataset`",
    "gate.model": "expected letters, digits, `.`, `_` and `-`, such as `cgan`",
}


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    return check_params(read_yaml(path), path)


def read_yaml(path: Path | str) -> Any:
    """The YAML document in `path`. Raises ParamsError with line and column where it is not valid."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path | str) -> str:
    """The text of a small file. Raises ParamsError when it is missing, too large or not UTF-8."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ParamsError(f"{path}: not a file. Restore it from git: `git checkout {path}`.")
        if size > MAX_BYTES:
            raise ParamsError(f"{path}: {size:,} bytes, expected at most {MAX_BYTES:,}.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: not found in {Path.cwd()}. Run from the project's top folder."
        ) from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not UTF-8 text. Save it as UTF-8.") from None


class _BoundedComposer(Composer):
    """Refuses a flood of aliases: a few lines of them can stand for gigabytes of values."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.aliases = 0
        self.warn_double_anchors = False  # YAML allows an anchor to be used again

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.parser.check_event(AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise ParamsError(
                    f"more than {MAX_ALIASES} YAML aliases. Write the values out instead."
                )
        node: Node | None = super().compose_node(parent, index)
        return node


def parse_yaml(text: str, name: Path | str) -> Any:
    """The YAML document in `text`; `name` stands for the file in the message of a ParamsError."""
    # DVC ends a line there where ruamel.yaml.clib is installed, and not elsewhere.
    if end := re.search("[\x85\u2028\u2029]", text):
        line = text.count("\n", 0, end.start()) + 1
        column = end.start() - text.rfind("\n", 0, end.start())
        raise ParamsError(
            f"{name}, line {line}, column {column}: not valid YAML: the invisible U+{ord(end[0]):04X} ends a "
            "line for some readers only. Remove it."
        )
    try:
        # Plain values: no tags of other types, no duplicate keys.
        yaml = YAML(typ="safe", pure=True)
        yaml.Composer = _BoundedComposer
        return yaml.load(text)
    except ParamsError as error:
        raise ParamsError(f"{name}: {error}") from None
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
        problems: list[Any] = [*space_problems(params)]
    except ValidationError as error:
        problems = _by_place(error)
    if not problems:
        return params
    told = [p if isinstance(p, str) else _problem_in_words(p) for p in problems[:MAX_SHOWN]]
    if len(problems) == 1:
        raise ParamsError(f"{name}: {told[0]}")
    lines = "\n".join(f"  - {problem}" for problem in told)
    first = f", the first {MAX_SHOWN} of them" if len(problems) > MAX_SHOWN else ""
    raise ParamsError(f"{name}: {len(problems):,} problems{first}:\n{lines}")


def _by_place(error: ValidationError) -> list[dict[str, Any]]:
    """Its problems, one a place: a number or `auto` has a problem with each."""
    places: dict[tuple[Any, ...], dict[str, Any]] = {}
    for problem in error.errors(include_url=False):
        depth = 4 if problem["loc"][:2] == ("sweep", "space") else 2
        place = problem["loc"][:depth]
        places.setdefault(place, {**problem, "loc": place})
    return list(places.values())


# --- the space of a sweep -----------------------------------------------------------------------

# Why these of `train` cannot be searched.
NOT_SEARCHED = {
    "seed": "a seed is luck, not a better recipe; `sweep.seeds` says with how many the best is confirmed",
    "probes": "trials are compared probe by probe, so each needs as many",
}


def space_problems(params: Params) -> list[str]:
    """What is wrong with `sweep.space`, measured by each param's own type and limits."""
    document = params.model_dump(by_alias=True)
    problems = []
    for key, dimension in params.sweep.space.items():
        section, _, name = key.partition(".")
        if section != "train" or name not in TrainChoices.model_fields:
            problems.append(f"`sweep.space.{key}`: {_why_not(key)}")
            continue
        if name in NOT_SEARCHED:
            problems.append(f"`sweep.space.{key}`: {NOT_SEARCHED[name]}. Remove it.")
            continue
        for value in dimension.bounds():
            changed = {**document, "train": {**document["train"], name: value}}
            try:
                Params.model_validate(changed)
            except ValidationError as error:
                # How params go together is looked at over the whole space, before a sweep starts.
                told = [p for p in _by_place(error) if p["loc"] == ("train", name)]
                problems += [f"`sweep.space.{key}`: {_problem_in_words(p)}" for p in told[:1]]
    return problems


def _why_not(key: str) -> str:
    if key in flatten_names(Params):
        return (
            "only params of `train` can be searched: the others change the data, or how drawings are "
            "judged, and trials could no longer be compared. Remove it."
        )
    return f"there is no such param; {_suggestion('train.' + key.rpartition('.')[2])}"


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
    if kind == "string_pattern_mismatch":
        return f"`{name}`: {EXAMPLES[name]}, got {found[:80]!r}."
    if "too_short" in kind:
        return f"`{name}` is empty, or too short: {problem['msg']}."
    if not (expected := _expected(problem["loc"])):
        return f"`{name}`: {problem['msg']}, got {_value_in_words(found)}."
    text = f"`{name}` should be {expected}, got {_value_in_words(found)}."
    with contextlib.suppress(ValueError):
        if isinstance(found, str) and kind in ("float_type", "int_type") and float(found):
            text += " Write it without quotes."
    if name == "validate.class_names" and isinstance(found, int | float):
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
    names = flatten_names(Params)
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
