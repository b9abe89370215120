"""Drawings as an answer: PNG, JSON, CSV or NPZ, by what the request accepts."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from fastapi import HTTPException
from torch import Tensor

from cgan.model.sampling import encode_png
from cgan.service.question import DrawQuery, DrawRequest, labels_of
from cgan.service.served import Served
from cgan.serving.class_names import names_in
from cgan.serving.drawings import csv_into, npz_into
from cgan.serving.generator import Generator
from cgan.serving.picture import Layout, arranged, png_of

PNG, JSON, CSV, NPZ = "image/png", "application/json", "text/csv", "application/x-npz"
FORMS = (PNG, JSON, CSV, NPZ)  # in the order in which they are preferred
MAX_VALUES = 2**25  # of pixels and colours in one answer
BYTES_A_VALUE = {PNG: 5, JSON: 5, CSV: 10, NPZ: 4}  # while an answer is made, at most


def form_for(accept: str) -> str:
    """By the header Accept, RFC 9110: the most welcome form. Raises HTTPException (406) if none is."""
    welcome: dict[str, tuple[float, int, int]] = {}
    for position, part in enumerate((accept or "*/*").split(",")[:50]):
        wanted, quality = _range(part)
        for form in FORMS:
            kind = form.partition("/")[0]
            specific = {form: 2, f"{kind}/*": 1, "*/*": 0}.get(wanted)
            # The most specific range says how welcome a form is, whatever a wider one says.
            if specific is not None and specific >= welcome.get(form, (0, -1, 0))[1]:
                welcome[form] = (quality, specific, -position)
    best = max(welcome, key=lambda form: welcome[form], default=None)
    if best is None or welcome[best][0] == 0:
        raise HTTPException(
            406, f"Accept: expected one of {', '.join(FORMS)}, found {accept[:100]!r}. Ask for one."
        )
    return best


def _range(part: str) -> tuple[str, float]:
    wanted, *settings = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "q":
            try:
                quality = float(value)
            except ValueError:
                return wanted, 0.0
    return wanted, quality if 0 <= quality <= 1 else 0.0


@dataclass(frozen=True)
class DrawAnswer:
    """How a question will be answered. `size` is how many bytes that takes while it is made."""

    form: str
    labels: list[int]
    seed: int
    scale: int
    layout: Layout
    size: int

    @classmethod
    def planned(
        cls, question: DrawQuery | DrawRequest, generator: Generator, form: str
    ) -> DrawAnswer:
        """Raises HTTPException (422) for a picture that is too large, and for data that are to be scaled."""
        row, shape = labels_of(question, generator), generator.shape
        drawings = len(row) * question.count
        layout = Layout.of(shape, len(row), question.count, question.scale)
        values = drawings * math.prod(shape)
        if form == PNG:
            values = layout.values
        elif form == JSON:
            values *= (question.scale or 1) ** 2
        elif question.scale is not None:
            raise HTTPException(
                422, f"the request: `scale` enlarges pictures, and {form} holds data. Leave it out."
            )
        if values > MAX_VALUES:
            raise HTTPException(
                422,
                f"the request: {drawings:,} drawings of {'×'.join(map(str, shape))}"
                f"{f', enlarged {layout.scale} times,' if form == PNG else ''} are {values:,} values, at "
                f"most {MAX_VALUES:,} are sent at once. Ask for fewer, or a smaller `scale`.",
            )
        labels, scale = row * question.count, question.scale or 1
        return cls(form, labels, question.seed, scale, layout, values * BYTES_A_VALUE[form])

    def encoded(self, images: Tensor, served: Served) -> bytes:
        """The body, of drawings uint8 [N, C, H, W]."""
        if self.form == PNG:
            return encode_png(arranged(images, self.layout))
        if self.form == JSON:
            return self._json(images, served)
        labels = torch.tensor(self.labels)
        if self.form == CSV:
            text = io.StringIO()
            csv_into(text, images, labels)
            return text.getvalue().encode()
        packed = io.BytesIO()
        generator = served.generator
        npz_into(packed, images, labels, names_in(generator.facts, generator.classes))
        return packed.getvalue()

    def _json(self, images: Tensor, served: Served) -> bytes:
        large = images.repeat_interleave(self.scale, dim=2).repeat_interleave(self.scale, dim=3)
        drawings: list[dict[str, Any]] = [
            {
                "label": label,
                "png_base64": base64.b64encode(png_of(image)).decode(),
            }
            for label, image in zip(self.labels, large, strict=True)
        ]
        document = {
            "labels": self.labels,
            "seed": self.seed,
            "shape": list(served.generator.shape),
            "model": served.identity(),
            "drawings": drawings,
        }
        return json.dumps(document).encode()
