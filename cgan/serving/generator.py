"""The generator for users: three lines from a model file to pictures.

torch is imported when a model is loaded, not before: a typing error in a text is told at once.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError
from cgan.serving.class_names import class_named, names_in, parse_text, stated_classes

if TYPE_CHECKING:
    from cgan.model import networks
    from cgan.model.sampling import Picture

MAX_SEED = 2**63 - 1
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
    def class_names(self) -> list[str]:
        """One a class, in the order of the labels; where they have no names, their numbers."""
        return names_in(self.facts, self.classes) or [str(label) for label in range(self.classes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (H, W), in colour (H, W, 3)."""
        a = self.network.architecture
        return (a.height, a.width) if a.channels == 1 else (a.height, a.width, a.channels)

    def draw(self, what: str | Sequence[int | str], seed: int = 0) -> Picture:
        """uint8 [N, *shape]: an image for each class in a text ("2024"), or in a list of labels or names.

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

    def labels(self, what: str | Sequence[int | str]) -> list[int]:
        """The classes that `what` asks for, checked: a text is read as `cgan.serving.class_names` says."""
        names = names_in(self.facts, self.classes)
        if isinstance(what, str):
            return parse_text(what, self.classes, names)
        labels: list[int] = []
        for position, label in enumerate(what):
            if isinstance(label, str) and names and (one := class_named(label, names)) is not None:
                labels.append(one)
            elif (
                not isinstance(label, str)
                and hasattr(label, "__index__")
                and 0 <= label < self.classes
            ):
                labels.append(operator.index(label))
            else:
                raise CganError(
                    f"label {label!r} at index {position} is not a class. "
                    f"The classes are 0 to {self.classes - 1}."
                )
        if not labels:
            raise CganError("no labels to draw. Give at least one.")
        return labels


def check_text(text: str, source: Path | str) -> None:
    """Raise CganError, without waiting for torch, if a part of the text is no class of a model file.

    The classes are those that its header states. Where it states none, and of a model in MLflow, nothing
    is found. Whether the file is whole shows when it is loaded.
    """
    stated = None if source in ALIASES or _MLFLOW_URI.match(str(source)) else stated_classes(source)
    if stated:
        parse_text(text, *stated)
