"""Names of settings in messages: `train.lr` as params.yaml has it, or `lr`, the keyword of a Python call."""

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from cgan.base.errors import ParamsError
from cgan.base.text import listed

KEYWORDS = {"preprocess.holdout_fraction": "fraction"}  # that differ from the param's last part
_NO_VALUE = object()
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_in_python: ContextVar[bool] = ContextVar("in_python", default=False)


@contextlib.contextmanager
def as_keywords() -> Iterator[None]:
    """Messages inside name keywords, for a caller in Python, who has no params.yaml."""
    token = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(token)


def python_call(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function for callers in Python: its messages name keywords. Raises ParamsError for a keyword that it
    does not have, with the nearest that it has."""
    known = inspect.signature(function).parameters
    takes_others = any(each.kind is each.VAR_KEYWORD for each in known.values())
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        for keyword in () if takes_others else keywords.keys() - known.keys():
            nearest = difflib.get_close_matches(keyword, known, n=1)
            advice = (
                f"did you mean `{nearest[0]}`?" if nearest else f"it has {listed([*known], 20)}."
            )
            raise ParamsError(f"cgan.{name}: unknown keyword `{keyword}`; {advice}")
        with as_keywords():
            return function(*arguments, **keywords)

    return call


def setting(name: str, value: object = _NO_VALUE) -> str:
    """The param in backticks, with a value to give it if there is one: `train.lr: 0.001` or `lr=0.001`."""
    if _in_python.get():
        name = KEYWORDS.get(name, name.partition(".")[2] or name)
        return f"`{name}`" if value is _NO_VALUE else f"`{name}={value!r}`".replace("'", '"')
    if value is _NO_VALUE:
        return f"`{name}`"
    return f"`{name}: {'null' if value is None else value}`"
