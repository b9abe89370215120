"""The generator for users: three lines from a model file to pictures.

torch is imported when a model is loaded, not before: a typing error in a text is told at once.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError

if TYPE_CHECKING:
    from cgan.model import networks
    from cgan.model.sampling import Picture

MAX_SEED = 2**63 - 1
MAX_HEADER_BYTES = 2**20
ALIASES = ("champion", "challenger", "previous")
_MLFLOW_URI = re.compile(r"^[a-z][a-z+-]+:/", re.IGNORECASE)


class Generator:
    """A trained generator, ready to draw.

    >>> generator = Generator.load("models/generator.safetensors")
    >>> images = generator.draw("2024", seed=7)  # uint8 [4, H, W]; colour: [4, H, W, 3]

    `facts` are what its file says of its making: params, data hash, seed, torch version. `source` is
    what it was loaded from.
    """

    def __init__(
        self, network: networks.Generator, facts: dict[str, Any], source: Path | str = ""
    ) -> None:
        self.network = network
        self.facts = facts
        self.source = str(source)

    def __repr__(self) -> str:
        a = self.network.architecture
        latent = f"latents of {a.latent_dim}" if a.latent_dim else "no latents"
        return (
            f"<Generator: {a.classes} classes, {a.width}×{a.height} pixels, "
            f"{'grey' if a.channels == 1 else 'colour'}, network {a.kind}, {latent}, "
            f"from {self.source or 'memory'}>"
        )

    @classmethod
    def load(cls, source: Path | str) -> Generator:
        """From a file, or from an MLflow URI: `runs:/<id>/generator`, `models:/<name>@champion`.

        `champion`, `challenger` and `previous` are short for the project's registered model; a champion
        that cannot be read gives way to the one before it, with a warning. Raises ModelError when there
        is no usable generator.
        """
        from cgan.model.model_file import load_generator

        if source in ALIASES:
            from cgan.registry.archive import served

            return cls(*served(str(source), load_generator), source)
        if isinstance(source, str) and _MLFLOW_URI.match(source):
            from cgan.registry.archive import generator_file

            with generator_file(source) as path:
                return cls(*load_generator(path), source)
        return cls(*load_generator(source), source)

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
        import torch

        from cgan.model.sampling import draw, picture_of

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


def check_text(text: str, source: Path | str) -> None:
    """Raise CganError, without waiting for torch, if no label can be read from some of the text.

    Of a file, the classes are those that its header states. Where it states none, and of a model in
    MLflow, only what no model has for a class is found. Whether the file is whole shows when it is
    loaded.
    """
    classes = None if source in ALIASES or _MLFLOW_URI.match(str(source)) else _classes_in(source)
    if classes:
        parse_text(text, classes)
    elif stranger := re.search(r"[^0-9,\s]", text):
        raise CganError(
            f"{stranger[0]!r}, character {stranger.start() + 1} of the text to draw, is not a class. "
            'Classes are digits ("2024"), or numbers separated by commas or spaces ("12,3 40").'
        )


def _classes_in(path: Path | str) -> int | None:
    """From the header of a safetensors file, which is its length in 8 bytes and then JSON."""
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
        classes = json.loads(header["__metadata__"]["cgan"])["architecture"]["classes"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return classes if type(classes) is int and classes > 0 else None


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
