"""params.yaml → `Params`, or one message that names every problem in it.

YAML is read as DVC reads it: version 1.2, by ruamel.yaml. Only DVC overrides a value
(`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import datetime
import difflib
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

from cgan.errors import ParamsError
from cgan.params.sections import Params, TrainChoices, flatten_names

MAX_BYTES = 1_000_000
MAX_ALIASES = 20
MAX_SHOWN = 20  # problems told at once


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


def yaml_reader() -> YAML:
    """ruamel.yaml's safe reader of plain values. It refuses tags of other types and duplicate keys."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    return yaml


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
        return yaml_reader().load(text)
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
    """Its problems. A number or `auto` has a problem with each; the place is told once."""
    places: dict[tuple[Any, ...], dict[str, Any]] = {}
    for problem in reversed(error.errors()):
        depth = 4 if problem["loc"][:2] == ("sweep", "space") else 2
        places[problem["loc"][:depth]] = dict(problem)
    return [found | {"loc": place} for place, found in reversed(places.items())]


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
    suggestion = _suggestion(key.rpartition(".")[2], TrainChoices, "train.")
    return f"there is no such param; {suggestion}"


def is_whole(key: str) -> bool:
    """Does `train.KEY` take whole numbers only?"""
    field = TrainChoices.model_fields[key.removeprefix("train.")]
    return float not in _types_in(field.annotation)


# --- the words for a problem --------------------------------------------------------------------


def _problem_in_words(problem: dict[str, Any]) -> str:
    location = problem["loc"]
    name = ".".join(map(str, location))
    kind, found = problem["type"], problem["input"]
    if not location:
        return str(problem["ctx"]["error"] if "ctx" in problem else problem["msg"])
    parent = _model_at(location[:-1])
    prefix = name.rpartition(".")[0]
    prefix = f"{prefix}." if prefix else ""
    if name == "train_judge.lr":
        return (
            "`train_judge.lr` is `train_judge.peak_lr` now, of another optimizer: write 0.2 where it "
            "was 2.0e-3."
        )
    if kind == "extra_forbidden":
        return f"unknown key `{name}`; {_suggestion(str(location[-1]), parent, prefix)}"
    if kind == "missing":
        absent = parent.model_fields.get(str(location[-1]))
        if absent is not None and type(None) in get_args(absent.annotation):
            return f"`{name}` is missing. Add `{location[-1]}: null`, which changes nothing."
        return f"`{name}` is missing. Add it, or restore params.yaml from git."
    if kind == "value_error":
        return f"`{name}`: {problem['ctx']['error']}."
    fields = {field.alias or key: field for key, field in parent.model_fields.items()}
    field = fields.get(str(location[-1])) or next(
        (fields[str(part)] for part in reversed(location) if str(part) in fields), None
    )
    if field is None:
        return f"`{name}`: {problem['msg']}, got {_value_in_words(found)}."
    expected = _type_in_words(field.annotation, field.metadata)
    text = f"`{name}` must be {expected}, got {_value_in_words(found)}."
    if wanted := {int, float} & _types_in(field.annotation):
        text += _number_meant(found, whole=wanted == {int})
    if name == "validate.class_names" and isinstance(found, int | float):
        text += f" Put it in quotes: '{found}'."
    if name == "gate.model" and kind == "string_pattern_mismatch":
        text += " Expected letters, digits, `.`, `_` and `-`, such as `cgan`."
    elif kind == "string_pattern_mismatch":
        text += " Expected a competition such as `digit-recognizer`, or `owner/dataset`."
    return text


def _model_at(location: tuple[Any, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Params
    for part in location:
        for name, field in model.model_fields.items():
            if part in (name, field.alias) and isinstance(field.annotation, type):
                if issubclass(field.annotation, BaseModel):
                    model = field.annotation
                break
    return model


def _suggestion(key: str, model: type[BaseModel], prefix: str) -> str:
    keys = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{prefix}{close[0]}`?"
    elsewhere = [name for name in flatten_names(Params) if name.split(".")[-1] == key]
    if elsewhere:
        return f"did you mean `{elsewhere[0]}`?"
    return "valid here: " + ", ".join(f"`{name}`" for name in keys) + "."


def _types_in(annotation: Any) -> set[Any]:
    """`float | Literal["auto"]`, with limits or without → {float, Literal["auto"]}."""
    if get_origin(annotation) in (types.UnionType, Union):
        return set().union(*map(_types_in, get_args(annotation)))
    return {get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation}


def _type_in_words(annotation: Any, metadata: list[Any]) -> str:
    """The field's type and range in words: `a number above 0`."""
    if get_origin(annotation) in (types.UnionType, Union):
        options = [option for option in get_args(annotation) if option is not type(None)]
        told = " or ".join(_type_in_words(option, metadata) for option in options)
        return told if len(options) > 1 else f"{told} or null"
    if get_origin(annotation) is Annotated:
        inner, *rules = get_args(annotation)
        limits_of = [limit for rule in rules for limit in getattr(rule, "metadata", [])]
        return _type_in_words(inner, limits_of)
    if get_origin(annotation) is list:
        return f"a list of {_type_in_words(get_args(annotation)[0], []).removeprefix('a ')}s"
    if get_origin(annotation) is Literal:
        texts = [f"`{option}`" for option in get_args(annotation)]
        return texts[0] if len(texts) == 1 else "one of " + ", ".join(texts)
    kind = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        annotation, "a section with keys"
    )
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{words[name]} {getattr(rule, name)}"
        for rule in metadata
        for name in words
        if getattr(rule, name, None) is not None
    ]
    return " ".join([kind, " and ".join(limits)]).strip()


def _value_in_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {value[:80]!r}" if value else "an empty text"
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    if isinstance(value, datetime.date):
        return f"the date {value}"
    return f"{str(value)[:80]}"


def _number_meant(found: Any, whole: bool) -> str:
    """What to write for a number in quotes, and for `1e6` where a whole number is expected."""
    if not isinstance(found, str) and not (whole and isinstance(found, float)):
        return ""
    try:
        number = float(found)
    except ValueError:
        return ""
    if not abs(number) < 1e15 or (whole and not number.is_integer()):
        return ""
    quotes = ", without quotes" if isinstance(found, str) else ""
    return f" Write {f'{number:.0f}' if whole else number}{quotes}."
