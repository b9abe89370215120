"""What a request asks for, and in which words it is refused."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any

from fastapi.exceptions import HTTPException, RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from cgan.errors import CganError
from cgan.serving.generator import MAX_SEED, Generator
from cgan.serving.picture import MAX_SCALE

MAX_TEXT = 10_000  # characters
MAX_DRAWINGS = 10_000
SHOWN = 5  # faults of one request
FIELDS = "There are text, labels (of POST), seed, count and scale."
EXAMPLE = 'Send an object such as {"text": "2024", "seed": 7}.'

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        description='Classes, as in `cgan draw`: "2024"; of more than 10 classes "12,3 40".',
        examples=["2024"],
    ),
]
Labels = Annotated[
    list[StrictInt | StrictStr],
    Field(
        min_length=1,
        max_length=MAX_DRAWINGS,
        fail_fast=True,
        description="Classes one by one, by number or by name, in place of `text`.",
    ),
]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, le=MAX_SEED, description="Equal seeds draw equal pictures.")
    count: int = Field(
        1,
        ge=1,
        le=MAX_DRAWINGS,
        description=f"Variants of each; drawings in all: at most {MAX_DRAWINGS:,}.",
    )
    scale: int | None = Field(
        None,
        ge=1,
        le=MAX_SCALE,
        description="Enlarges each pixel so many times. Of pictures only.",
    )


class DrawQuery(_Question):
    """What `GET /draw` asks for."""

    text: Text


class DrawRequest(_Question):
    """What `POST /draw` asks for: `text` or `labels`."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"text": "2024", "seed": 7},
                {"labels": [3, 1, 4], "seed": 1, "count": 5, "scale": 2},
            ]
        },
    )

    text: Text | None = None
    labels: Labels | None = None

    @model_validator(mode="after")
    def _check(self) -> DrawRequest:
        if (self.text is None) == (self.labels is None):
            found = "neither" if self.text is None else "both"
            raise ValueError(f"expected `text` or `labels`, found {found}")
        return self


def labels_of(question: DrawQuery | DrawRequest, generator: Generator) -> list[int]:
    """The classes, a row of variants. Raises HTTPException (422) for what is no class, and for too many."""
    given = getattr(question, "labels", None)
    try:
        labels = generator.labels(question.text or "" if given is None else given)
    except CganError as error:
        raise HTTPException(422, f"`{'text' if given is None else 'labels'}`: {error}") from None
    drawings = len(labels) * question.count
    if drawings > MAX_DRAWINGS:
        raise HTTPException(
            422,
            f"the request: {len(labels):,} labels × {question.count:,} variants are {drawings:,} drawings, "
            f"at most {MAX_DRAWINGS:,} are made at once. Ask several times, with other seeds.",
        )
    return labels


def refusal(error: RequestValidationError) -> tuple[int, str]:
    """The status, and all that is wrong in words."""
    by_place = {tuple(fault["loc"][:3]): fault for fault in reversed(error.errors())}
    faults = list(reversed(by_place.values()))
    [where, *place] = faults[0]["loc"]
    if faults[0]["type"] == "json_invalid":
        found = f"{faults[0]['ctx']['error'].removesuffix(' at')} at character {place[0]}"
        return 400, f"the body: expected JSON, found something else ({found}). {EXAMPLE}"
    if isinstance(faults[0]["input"], bytes):
        return 415, (
            "Content-Type: expected application/json, found another or none. With curl: "
            '--json \'{"text": "2024"}\'.'
        )
    more = f" And {len(faults) - SHOWN:,} more." if len(faults) > SHOWN else ""
    words = " ".join(_in_words(fault) for fault in faults[:SHOWN])
    return 422, f"the {where}: {words}{more} {FIELDS if place else EXAMPLE}"


def _in_words(fault: dict[str, Any]) -> str:
    place = fault["loc"][1:]
    name = f"`{ascii(str(place[0])[:40])[1:-1]}`: " if place else ""
    if fault["type"] == "extra_forbidden":
        return f"{name}there is no such field."
    if fault["type"] == "value_error":
        return f"{str(fault['msg']).removeprefix('Value error, ')}."
    if fault["type"] == "missing":
        return f"{name}required, found nothing."
    at = f"at index {place[1]}: " if place[1:] else ""
    expected = str(fault["msg"]).replace("Input should be a valid", "expected a valid")
    expected = expected.replace("Input should be", "expected a value")
    return f"{name}{at}{expected}, found {reprlib.repr(fault['input'])}."
