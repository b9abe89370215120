"""Checks of params: values → a section, or one error that names every problem."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from cgan.base.errors import ParamsError
from cgan.base.settings import as_keywords, setting
from cgan.base.text import bullets
from cgan.params.removed import REMOVED
from cgan.params.sections import Params, Section, param_names

S = TypeVar("S", bound=Section)
# Names that other libraries use → the params of the same purpose.
SYNONYMS = {"learning_rate": "train.lr", "epochs": "train.total_kimg", "gpu": "train.device"}


def check_params(document: Any, name: Path | str) -> Params:
    """The params in a YAML document. Raises ParamsError that lists all problems at once."""
    if not isinstance(document, dict):
        raise ParamsError(f"{name}: expected sections with keys, found {reprlib.repr(document)}.")
    return _validate(Params, document, str(name))


def check_section(
    kind: type[S], section: str, values: Mapping[str, Any], name: str, *others: str
) -> S:
    """A section, from values by name; those that are left out take their defaults. NumPy's numbers count as
    Python's. Raises ParamsError that lists all problems at once; the message begins with `name`, and for an
    unknown key it may propose one of `others`, too."""
    plain = {
        key: item.item() if isinstance(item, np.generic) else item for key, item in values.items()
    }
    with as_keywords():
        return _validate(kind, plain, name, section, others)


def _validate(
    kind: type[S],
    values: dict[Any, Any],
    name: str,
    section: str = "",
    others: Sequence[str] = (),
) -> S:
    """The values as a `kind`, or one ParamsError for all mistakes. `section`: the only one checked."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        prefix = (section,) if section else ()
        found = error.errors(include_url=False)
    known = param_names()
    if section:
        known = [f"{section}.{field}" for field in (*kind.model_fields, *others)]
    # A value that is neither a number nor `auto` has two errors with one key, one after the other.
    by_key = groupby(found, lambda problem: _key((*prefix, *problem["loc"])))
    problems = [
        _problem_in_words(key if key != section else "", [*each], known) for key, each in by_key
    ]
    if len(problems) == 1:
        raise ParamsError(f"{name}: {problems[0]}")
    lines = bullets(problems, len(problems))
    raise ParamsError(f"{name}: {len(problems):,} problems:{lines}")


def _key(location: tuple[int | str, ...]) -> str:
    """`train.lr`, `validate.class_names.3` or `sweep.space.train.lr.low`, from pydantic's location, which
    also names members of unions: (`train`, `batch_size`, `constrained-int`)."""
    # Section and param, or the param that is searched and `low`; then a union's member, or a list's index.
    depth = 4 if location[:2] == ("sweep", "space") else 2
    indices = [part for part in location[depth:] if isinstance(part, int)]
    return ".".join(str(part) for part in [*location[:depth], *indices] if part != "[key]")


def _problem_in_words(key: str, problems: list[Any], known: list[str]) -> str:
    """The problems of one key as a sentence. `known`: the keys that there are."""
    kind, value = problems[0]["type"], problems[0]["input"]
    is_unknown = kind == "extra_forbidden"
    removed = f"{key}: {value}" if isinstance(value, str) and not is_unknown else key
    if removed in REMOVED:
        return f"{setting(*removed.split(': '))} was removed in 1.0: {REMOVED[removed]}."
    if is_unknown:
        return f"unknown key {setting(key)}; {_suggestion(key, known)}"
    if kind == "missing":
        return f"{setting(key)} is missing. Add it."
    words = ", or ".join(problem["msg"].removeprefix("Value error, ") for problem in problems)
    if kind != "value_error":  # raised by our checks, whose messages say what was found
        words += f", found {reprlib.repr(value)}"
    return f"{setting(key)}: {words}." if key else f"{words}."


def _suggestion(key: str, known: list[str]) -> str:
    """Advice for a key that does not exist: the most similar one in its section, else in all."""
    section, _, name = key.rpartition(".")
    if key in known:  # written with a dot at the top, as `dvc exp run -S` has it
        return f"write `{name}` under `{section}:`."
    words = [*SYNONYMS.items(), *((param.rpartition(".")[2], param) for param in known)]
    named = [(word, param) for word, param in words if param in known]
    siblings = {word: param for word, param in named if param.startswith(f"{section}.")}
    sections = {param.partition(".")[0]: param.partition(".")[0] for param in known}
    for candidates in (siblings or sections, dict(named)):
        for closest in difflib.get_close_matches(name, candidates, n=1):
            return f"did you mean {setting(candidates[closest])}?"
    return "remove it."
