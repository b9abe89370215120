"""Values → checked params, or one message that names every problem in them."""

import difflib
import reprlib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from cgan.errors import ParamsError
from cgan.params.sections import Params, Section, TrainChoices, names_of_params
from cgan.settings import as_keywords, setting

S = TypeVar("S", bound=Section)
# Names that other libraries use.
SYNONYMS = {"learning_rate": "lr", "epochs": "total_kimg", "gpu": "device"}


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
        raise _all_problems(error, str(name)) from None


def check_train(values: Mapping[str, Any], name: str) -> TrainChoices:
    """The params of a training by their names, checked as `check_section` does."""
    return check_section(TrainChoices, "train", values, name)


def check_section(kind: type[S], section: str, values: Mapping[str, Any], name: str) -> S:
    """The params of a section by their names; those that are left out take their defaults. NumPy's numbers
    count as Python's. Raises ParamsError that lists all problems at once; `name` stands in front of it."""
    plain = {
        key: item.item() if isinstance(item, np.generic) else item for key, item in values.items()
    }
    with as_keywords():
        try:
            return kind.model_validate(plain)
        except ValidationError as error:
            raise _all_problems(error, name, section) from None


def _all_problems(error: ValidationError, name: str, section: str = "") -> ParamsError:
    """One message of all that is wrong. `section`: the one that was checked; "": all of them."""
    inside = (section,) if section else ()
    # What is neither a number nor `auto` has two errors of one key, one after the other.
    by_key = groupby(error.errors(include_url=False), lambda found: _key((*inside, *found["loc"])))
    problems = [_in_words("" if key == section else key, list(errors)) for key, errors in by_key]
    if len(problems) == 1:
        return ParamsError(f"{name}: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return ParamsError(f"{name}: {len(problems):,} problems:{lines}")


def _key(place: tuple[int | str, ...]) -> str:
    """`train.lr`, `validate.class_names.3`, `sweep.space.train.lr.low`: pydantic's location without the
    members of unions that it lists as well."""
    depth = 2
    if place[:2] == ("sweep", "space"):
        place, depth = place[:3] + place[4:], 4
    items = [part for part in place[depth:] if isinstance(part, int)]
    return ".".join(str(part) for part in [*place[:depth], *items] if part != "[key]")


def _in_words(key: str, problems: list[Any]) -> str:
    kind, value = problems[0]["type"], problems[0]["input"]
    if kind == "extra_forbidden":
        return f"unknown key {setting(key)}; {_suggestion(key)}"
    if kind == "missing":
        return f"{setting(key)} is missing. Add it."
    words = ", or ".join(problem["msg"].removeprefix("Value error, ") for problem in problems)
    if kind != "value_error":  # our own says what was found
        words += f", found {reprlib.repr(value)}"
    return f"{setting(key)}: {words}." if key else f"{words}."


def _suggestion(key: str) -> str:
    """What was probably meant by a key that does not exist: one of its section, or this one of another."""
    section, _, name = key.rpartition(".")
    names = names_of_params()
    if key in names:  # at the top, as `dvc exp run -S` has it
        return f"write `{name}` under `{section}:`."
    meant = {param.rpartition(".")[2]: param for param in names if param.startswith(f"{section}.")}
    meant |= {word: meant[ours] for word, ours in SYNONYMS.items() if ours in meant}
    meant = meant or {param.partition(".")[0]: param.partition(".")[0] for param in names}
    for close in difflib.get_close_matches(name, meant, n=1, cutoff=0.5):
        return f"did you mean {setting(meant[close])}?"
    others = [param for param in names if param.endswith(f".{name}")]
    return f"did you mean `{others[0]}`?" if others else "remove it."
