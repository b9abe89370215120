"""What a request to draw may ask for, and the forms of its answer: PNG, JSON, CSV or NPZ."""

from __future__ import annotations

import base64
import fnmatch
import io
import json
import math
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator
from torch import Tensor

from cgan.errors import CganError
from cgan.model.sampling import encode_png
from cgan.service.served import Served
from cgan.serving.class_names import names_in
from cgan.serving.drawings import csv_into, npz_into
from cgan.serving.generator import MAX_SEED
from cgan.serving.picture import MAX_SCALE, Layout, arranged, png_of

PNG, JSON, CSV, NPZ = "image/png", "application/json", "text/csv", "application/x-npz"
FORMS = (PNG, JSON, CSV, NPZ)
MAX_TEXT = 10_000  # characters
MAX_DRAWINGS = 10_000
MAX_VALUES = 2**24  # pixels × colours of one answer

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
    def _check(self) -> DrawRequest:
        if (self.text is None) == (self.labels is None):
            found = "neither" if self.text is None else "both"
            raise ValueError(f"expected `text` or `labels`, found {found}")
        return self


def form_for(accept: str) -> str | None:
    """The first form that a header Accept lists, `*` included; its qualities are ignored."""
    ranges = [part.partition(";")[0].strip().lower() for part in (accept or "*/*").split(",")[:50]]
    return next((form for wanted in ranges for form in fnmatch.filter(FORMS, wanted)), None)


def labels_for(question: DrawQuery, served: Served, form: str) -> list[int]:
    """The class of each drawing. Raises CganError for what is no class, and for too large an answer."""
    generator = served.generator
    row = generator.labels(getattr(question, "labels", None) or question.text)
    labels = row * question.count
    if len(labels) > MAX_DRAWINGS:
        raise CganError(
            f"{len(row):,} classes × {question.count:,} variants are {len(labels):,} drawings, at most "
            f"{MAX_DRAWINGS:,} are made at once. Ask several times, with other seeds."
        )
    if form in (CSV, NPZ) and question.scale:
        raise CganError(f"`scale` enlarges pictures, and {form} holds data. Leave it out.")
    values = len(labels) * math.prod(generator.shape) * (question.scale or 1) ** 2
    if form == PNG:
        values = Layout.of(generator.shape, len(row), question.count, question.scale).values
    if values > MAX_VALUES:
        raise CganError(
            f"the answer would have {values:,} values (pixels × colours), at most {MAX_VALUES:,} are sent at "
            "once. Ask for fewer drawings, or a smaller `scale`."
        )
    return labels


def encoded(
    images: Tensor, labels: list[int], question: DrawQuery, served: Served, form: str
) -> bytes:
    """The body of an answer, of drawings uint8 [N, C, H, W]."""
    generator = served.generator
    if form == PNG:
        row = len(labels) // question.count
        layout = Layout.of(generator.shape, row, question.count, question.scale)
        return encode_png(arranged(images, layout))
    if form == JSON:
        return json.dumps(_document(images, labels, question, served)).encode()
    if form == CSV:
        text = io.StringIO()
        csv_into(text, images, torch.tensor(labels))
        return text.getvalue().encode()
    packed = io.BytesIO()
    names = names_in(generator.facts, generator.classes)
    npz_into(packed, images, torch.tensor(labels), names)
    return packed.getvalue()


def _document(
    images: Tensor, labels: list[int], question: DrawQuery, served: Served
) -> dict[str, Any]:
    scale = question.scale or 1
    large = images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    pictures = [base64.b64encode(png_of(image)).decode() for image in large]
    return {
        "labels": labels,
        "seed": question.seed,
        "shape": served.generator.shape,
        "model": served.identity(),
        "drawings": [
            {"label": label, "png_base64": picture}
            for label, picture in zip(labels, pictures, strict=True)
        ],
    }
