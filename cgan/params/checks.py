"""Checks of params: values → a section, or one error that names every problem."""

import difflib
import reprlib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from cgan.base.errors import ParamsError
from cgan.base.settings import setting
from cgan.base.text import bullets
from cgan.params.sections import Params, Section, param_names

S = TypeVar("S", bound=Section)


def check_params(document: Any, name: Path | str) -> Params:
    """The params in a YAML document. Raises ParamsError that lists all problems at once."""
    if not isinstance(document, dict):
        raise ParamsError(f"{name}: expected sections with keys, found {reprlib.repr(document)}.")
    return _validate(Params, document, str(name), "", param_names())


def check_section(
    section_type: type[S], section: str, values: Mapping[str, Any], name: str, *others: str
) -> S:
    """A section, from values by name; those that are left out take their defaults. NumPy's numbers count as
    Python's. Raises ParamsError that lists all problems at once; the message begins with `name`, and for an
    unknown key it may propose one of `others`, too."""
    plain = {
        key: item.item() if isinstance(item, np.generic) else item for key, item in values.items()
    }
    known = [f"{section}.{field}" for field in (*section_type.model_fields, *others)]
    return _validate(section_type, plain, name, section, known)


def _validate(
    section_type: type[S], values: dict[Any, Any], name: str, section: str, known: list[str]
) -> S:
    """The values as a `section_type`, or one ParamsError for all mistakes. `section`: the only one checked.
    `known`: the keys that there are."""
    try:
        return section_type.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
    prefix = (section,) if section else ()
    # A value that is neither a number nor `auto` has two errors with one key, one after the other.
    by_key = groupby(found, lambda problem: _key((*prefix, *problem["loc"])))
    problems = [
        _problem_in_words(key if key != section else "", [*each], known) for key, each in by_key
    ]
    if len(problems) == 1:
        raise ParamsError(f"{name}: {problems[0]}")
    raise ParamsError(f"{name}: {len(problems):,} problems:{bullets(problems, len(problems))}")


def _key(location: tuple[int | str, ...]) -> str:
    """`train.lr`, `validate.class_names.3` or `sweep.space.train.lr.low`, from pydantic's location, which
    also names members of unions: (`train`, `max_shift`, `constrained-int`)."""
    # Section and param, or the param that is searched and `low`; then a union's member, or a list's index.
    depth = 4 if location[:2] == ("sweep", "space") else 2
    indices = [part for part in location[depth:] if isinstance(part, int)]
    return ".".join(str(part) for part in [*location[:depth], *indices] if part != "[key]")


def _problem_in_words(key: str, problems: list[Any], known: list[str]) -> str:
    """The problems of one key as a sentence."""
    error, value = problems[0]["type"], problems[0]["input"]
    if error == "extra_forbidden":
        return f"unknown key {setting(key)}; {_suggestion(key, known)}"
    words = ", or ".join(problem["msg"].removeprefix("Value error, ") for problem in problems)
    if error != "value_error":  # raised by our checks, whose messages say what was found
        words += f", found {reprlib.repr(value)}"
    return f"{setting(key)}: {words}." if key else f"{words}."


def _suggestion(key: str, known: list[str]) -> str:
    """Advice for a key that does not exist: the most similar one in its section, else in all."""
    section, _, name = key.rpartition(".")
    if key in known:  # written with a dot at the top, as `dvc exp run -S` has it
        return f"write `{name}` under `{section}:`."
    siblings = [param for param in known if param.startswith(f"{section}.")]
    sections = [param.partition(".")[0] for param in known]
    for candidates in (siblings or sections, known):
        names = {param.rpartition(".")[2]: param for param in candidates}
        for closest in difflib.get_close_matches(name, names, n=1):
            return f"did you mean {setting(names[closest])}?"
    return "remove it."
