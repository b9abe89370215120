"""What a request asks for, checked before anything is drawn. All that is wrong with it is told at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cgan.errors import CganError
from cgan.serving.generator import MAX_SEED, Generator
from cgan.serving.picture import MAX_SCALE

MAX_BODY_BYTES = 2**16
MAX_TEXT = 10_000  # characters
MAX_DRAWINGS = 10_000
MAX_UNKNOWN = 5  # fields that a refusal names
FIELDS = "text or labels, seed, count, scale"


class RefusedError(CganError):
    """A request that is not served: why in words, with its HTTP status and headers."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers or {}


@dataclass(frozen=True)
class DrawRequest:
    """`rows` variants of each of `labels`, row by row."""

    labels: list[int]
    seed: int = 0
    rows: int = 1
    scale: int | None = None

    @property
    def drawings(self) -> int:
        return len(self.labels) * self.rows

    @property
    def all_labels(self) -> list[int]:
        return self.labels * self.rows


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


# Field → what it must be, in words, and whether a value is that.
_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": (
        f"a text of 1 to {MAX_TEXT:,} characters",
        lambda value: isinstance(value, str) and 1 <= len(value) <= MAX_TEXT,
    ),
    "labels": (
        f"a list of 1 to {MAX_DRAWINGS:,} classes, by number or by name",
        lambda value: isinstance(value, list) and 1 <= len(value) <= MAX_DRAWINGS,
    ),
    "seed": (f"a whole number from 0 to {MAX_SEED}", _whole(0, MAX_SEED)),
    "count": (f"a whole number from 1 to {MAX_DRAWINGS:,}", _whole(1, MAX_DRAWINGS)),
    "scale": (f"a whole number from 1 to {MAX_SCALE}", _whole(1, MAX_SCALE)),
}


def from_body(body: bytes, generator: Generator) -> DrawRequest:
    """Raises RefusedError: 400 for what is no JSON object, 422 for one that asks for the impossible."""
    return _checked(_parsed(body), "the body", generator)


def from_query(pairs: Sequence[tuple[str, str]], generator: Generator) -> DrawRequest:
    """Of the address of a picture: `text`, `seed`, `count`, `scale`."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise RefusedError(422, f"the query: `{name[:40]}` stands there twice. Give it once.")
        if name == "labels":
            raise RefusedError(
                422, "the query: `labels` is for POST /draw. Give `text`, as in ?text=2024&seed=7."
            )
        number = name in ("seed", "count", "scale") and re.fullmatch(r"[0-9]{1,19}", value)
        fields[name] = int(value) if number else value
    return _checked(fields, "the query", generator)


def _parsed(body: bytes) -> dict[str, Any]:
    example = 'Send an object such as {"text": "2024", "seed": 7}.'

    def refuse_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    def whole(digits: str) -> int | float:
        return int(digits) if len(digits) <= 20 else math.inf  # no limit of ours is as high

    try:
        document = json.loads(
            body.decode(), parse_constant=refuse_constant, object_pairs_hook=once, parse_int=whole
        )
    except UnicodeDecodeError as error:
        raise RefusedError(
            400, f"the body: expected UTF-8, found something else at byte {error.start}. {example}"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = (getattr(error, "msg", None) or str(error)).removesuffix(" at")
        reason = "nested too deep" if isinstance(error, RecursionError) else reason
        place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise RefusedError(
            400, f"the body: expected JSON, found something else ({reason}{place}). {example}"
        ) from None
    if not isinstance(document, dict):
        raise RefusedError(
            400, f"the body: expected a JSON object, found {_shown(document)}. {example}"
        )
    return document


def _checked(fields: dict[str, Any], where: str, generator: Generator) -> DrawRequest:
    found = {name: value for name, value in fields.items() if value is not None}
    faults = []
    if unknown := [f"`{name[:40]}`" for name in found if name not in _EXPECTED]:
        more = f" and {len(unknown) - MAX_UNKNOWN:,} more" if len(unknown) > MAX_UNKNOWN else ""
        such = "there is no such field" if len(unknown) == 1 else "there are no such fields"
        faults.append(f"{', '.join(unknown[:MAX_UNKNOWN])}{more}: {such}. There are {FIELDS}.")
    faults += [
        f"`{name}`: expected {words}, found {_shown(found[name])}."
        for name, (words, holds) in _EXPECTED.items()
        if name in found and not holds(found[name])
    ]
    if ("text" in found) == ("labels" in found):
        both = "both" if "text" in found else "neither"
        faults.append(
            f"expected `text` or `labels`, found {both}. Say with one of them what to draw."
        )
    if not faults:
        try:
            labels = generator.labels(found["text"] if "text" in found else _plain(found["labels"]))
        except CganError as error:
            name = "text" if "text" in found else "labels"
            raise RefusedError(422, f"{where}: `{name}`: {error}") from None
        rows = found.get("count", 1)
        if len(labels) * rows <= MAX_DRAWINGS:
            return DrawRequest(labels, found.get("seed", 0), rows, found.get("scale"))
        faults.append(
            f"{len(labels):,} labels × {rows:,} variants are {len(labels) * rows:,} drawings, at most "
            f"{MAX_DRAWINGS:,} are made at once. Ask several times, with other seeds."
        )
    raise RefusedError(422, f"{where}: {_joined(faults)}")


def _plain(labels: list[Any]) -> list[Any]:
    """Raises CganError for what is neither a number nor a name: true is no class, nor is 1.0."""
    for position, label in enumerate(labels):
        if type(label) not in (int, str):
            raise CganError(
                f"expected a class at index {position}, by number or by name, found {_shown(label)}."
            )
    return labels


def _joined(faults: Iterable[str]) -> str:
    return " ".join(faults)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value):,}" if value else "an empty list"
    if isinstance(value, str):
        if len(value) > 40:
            return f"a text of {len(value):,} characters"
        return repr(value) if value else "an empty text"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and math.isinf(value):
        return "a number too far from 0"
    return str(value)
