"""What a request to draw may ask for, and the forms of its answer: PNG, JSON, CSV or NPZ."""

from __future__ import annotations

import base64
import fnmatch
import io
import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from cgan.errors import CganError
from cgan.model.sampling import encode_png
from cgan.serving.drawings import write_csv, write_npz
from cgan.serving.generator import MAX_SEED, Generator
from cgan.serving.picture import MAX_SCALE, Style, compose

PNG, JSON, CSV, NPZ = "image/png", "application/json", "text/csv", "application/x-npz"
FORMS = (PNG, JSON, CSV, NPZ)
MAX_DRAWINGS = 10_000
MAX_VALUES = 2**24  # pixels × colours of one answer

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DRAWINGS,
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
        description="Class numbers or names, in place of `text`.",
    ),
]


class DrawQuery(BaseModel):
    """What `GET /draw` asks for."""

    model_config = ConfigDict(extra="forbid")

    text: Text
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Equal seeds draw equal pictures.")
    count: int = Field(1, ge=1, le=MAX_DRAWINGS, description="Variants of each class.")
    scale: int | None = Field(
        None, ge=1, le=MAX_SCALE, description="Enlarges each pixel so many times. Of pictures only."
    )


class DrawRequest(DrawQuery):
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

    text: Text | None = None  # type: ignore[assignment]
    labels: Labels | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> DrawRequest:
        if (self.text is None) == (self.labels is None):
            found = "neither" if self.text is None else "both"
            raise ValueError(f"expected `text` or `labels`, found {found}")
        return self


def form_for(accept: str) -> str | None:
    """The first form that a header Accept lists, `*` included; its qualities are ignored."""
    ranges = [part.partition(";")[0].strip().lower() for part in (accept or "*/*").split(",")[:50]]
    return next((form for wanted in ranges for form in fnmatch.filter(FORMS, wanted)), None)


def answer(
    question: DrawQuery, form: str, generator: Generator, model: dict[str, Any]
) -> tuple[bytes, int]:
    """The body of an answer, and how many images it holds. Raises CganError for what is no class, and for too
    large an answer, before anything is drawn."""
    row = generator.labels(getattr(question, "labels", None) or question.text)
    count, scale = len(row) * question.count, question.scale or 1
    values = count * math.prod(generator.shape) * scale**2
    if count > MAX_DRAWINGS or values > MAX_VALUES:
        raise CganError(
            f"{len(row):,} classes × {question.count:,} variants are {count:,} drawings of {values:,} values "
            f"(pixels × colours), expected at most {MAX_DRAWINGS:,} and {MAX_VALUES:,}. Ask several times, "
            "with other seeds, or for a smaller `scale`."
        )
    if form == PNG:
        style = Style(question.scale)
        picture = compose(generator.network, row, question.count, question.seed, style, MAX_VALUES)
        return encode_png(picture[1]), count
    if form in (CSV, NPZ) and question.scale:
        raise CganError(f"`scale` enlarges pictures, and {form} holds data. Leave it out.")
    labels = row * question.count
    images = generator.draw(labels, question.seed)
    if form == CSV:
        table = io.StringIO()
        write_csv(table, images, labels)
        return table.getvalue().encode(), count
    if form == NPZ:
        packed = io.BytesIO()
        write_npz(packed, images, labels, generator)
        return packed.getvalue(), count
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    pngs = [base64.b64encode(encode_png(image)).decode() for image in large]
    document = {
        "labels": labels,
        "seed": question.seed,
        "shape": generator.shape,
        "model": model,
        "drawings": [
            {"label": label, "png_base64": png} for label, png in zip(labels, pngs, strict=True)
        ],
    }
    return json.dumps(document).encode(), count
