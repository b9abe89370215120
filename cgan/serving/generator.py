"""The generator for users: three lines from a model file to pictures."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cgan.errors import CganError
from cgan.model import networks
from cgan.model.model_file import load_generator
from cgan.model.sampling import Picture, draw, picture_of

MAX_SEED = 2**63 - 1
_MLFLOW_URI = re.compile(r"^[a-z][a-z+-]+:/", re.IGNORECASE)


class Generator:
    """A trained generator, ready to draw.

    >>> generator = Generator.load("models/generator.safetensors")
    >>> images = generator.draw("2024", seed=7)  # uint8 [4, H, W]; colour: [4, H, W, 3]

    `facts` are what its file says of its making: params, data hash, seed, torch version.
    """

    def __init__(self, network: networks.Generator, facts: dict[str, Any]) -> None:
        self.network = network
        self.facts = facts

    @classmethod
    def load(cls, source: Path | str) -> Generator:
        """From a file, or from an MLflow URI: `runs:/<id>/generator`, `models:/<name>@champion`.

        `champion`, `challenger` and `previous` are short for the project's registered model; a champion
        that cannot be read gives way to the one before it, with a warning. Raises ModelError when there
        is no usable generator.
        """
        if source in ("champion", "challenger", "previous"):
            from cgan.registry.archive import served

            return cls(*served(str(source), load_generator))
        if isinstance(source, str) and _MLFLOW_URI.match(source):
            from cgan.registry.archive import generator_file

            with generator_file(source) as path:
                return cls(*load_generator(path))
        return cls(*load_generator(source))

    @property
    def classes(self) -> int:
        """How many; labels are 0 to classes - 1."""
        return self.network.architecture.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (H, W), in colour (H, W, 3)."""
        a = self.network.architecture
        return (a.height, a.width) if a.channels == 1 else (a.height, a.width, a.channels)

    def draw(self, what: str | Sequence[int], seed: int = 0) -> Picture:
        """uint8 [N, *shape]: an image for each class in a text ("2024") or a list of labels.

        Equal seeds draw equal images, position by position, however many are asked for. Raises
        CganError for something that is no class.
        """
        labels = self.labels(what)
        if not 0 <= seed <= MAX_SEED:
            raise CganError(f"the seed is {seed}, expected a whole number from 0 to {MAX_SEED}.")
        images = draw(self.network, torch.tensor(labels), seed)
        return picture_of(images.permute(0, 2, 3, 1).contiguous())

    def labels(self, what: str | Sequence[int]) -> list[int]:
        """The classes that `what` asks for, checked."""
        if isinstance(what, str):
            return parse_text(what, self.classes)
        for position, label in enumerate(what):
            if not (hasattr(label, "__index__") and 0 <= label < self.classes):
                raise CganError(
                    f"label {label!r} at index {position} is not a class. "
                    f"The classes are 0 to {self.classes - 1}."
                )
        if not len(what):
            raise CganError("no labels to draw. Give at least one.")
        return [operator.index(label) for label in what]


def parse_text(text: str, classes: int) -> list[int]:
    """The labels that a text asks for. Raises CganError that names the first character that is none.

    Up to 10 classes each digit is a label ("2024"); beyond, numbers stand between commas or spaces
    ("12,3 40").
    """
    valid = f"0 to {classes - 1}"
    if classes > 10:
        words = text.replace(",", " ").split()
        valid += ', separated by commas or spaces ("12,3 40")'
    else:
        words = list(text)
    if not words:
        raise CganError(f"the text to draw is empty. The classes are {valid}.")
    labels = []
    for position, word in enumerate(words, start=1):
        # isdecimal() alone would let other scripts' digits through.
        if not (word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < classes):
            part = "number" if classes > 10 else "character"
            raise CganError(
                f"{word[:40]!r}, {part} {position} of the text to draw, is not a class. "
                f"The classes are {valid}."
            )
        labels.append(int(word))
    return labels
