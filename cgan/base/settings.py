"""Names of settings in messages: `train.lr` as params.yaml has it, or `lr`, the keyword of a Python call."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

KEYWORDS = {"preprocess.holdout_fraction": "fraction"}  # that differ from the param's last part
_NO_VALUE = object()
_in_python: ContextVar[bool] = ContextVar("in_python", default=False)


@contextlib.contextmanager
def as_keywords() -> Iterator[None]:
    """Messages inside name keywords, for a caller in Python, who has no params.yaml: also a decorator."""
    token = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(token)


def setting(name: str, value: object = _NO_VALUE) -> str:
    """The param in backticks, with a value to give it if there is one: `train.lr: 0.001` or `lr=0.001`."""
    if _in_python.get():
        name = KEYWORDS.get(name, name.partition(".")[2] or name)
        return f"`{name}`" if value is _NO_VALUE else f"`{name}={value!r}`".replace("'", '"')
    if value is _NO_VALUE:
        return f"`{name}`"
    return f"`{name}: {'null' if value is None else value}`"
