"""The generator for users: three lines from a model file to pictures. Loading one imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from cgan.base.errors import CganError, ModelError
from cgan.base.report import Report
from cgan.drawing.class_names import Classes, names_in
from cgan.models.file_facts import DVC_PULL

if TYPE_CHECKING:
    from PIL.Image import Image

    from cgan.models.generative import GenerativeModel
    from cgan.models.sampling import ImageArray

DIGITS = "digits"  # names the package's own generator
BUNDLED = Path(__file__).with_name("digits.safetensors")  # made by tools/package_generator.py
MAX_SEED = 2**63 - 1
MAX_NOTEBOOK_CLASSES = 20  # of which a notebook shows a drawing
ALIASES = ("champion", "challenger")  # of versions of the registered model
# Finds the run of a name in MLflow; by its own name, as the pipeline is a room above this one.
FIND_RUN = "cgan.pipeline.registry.runs:find_run"
_MLFLOW_URI = re.compile(r"^[a-z][a-z+-]+:/", re.IGNORECASE)


class Generator:
    """A trained generator, ready to draw.

    >>> generator = cgan.Generator.load()  # the one of this package, of MNIST's digits
    >>> generator.draw("2024", seed=7).shape  # uint8; in colour [4, H, W, 3]
    (4, 28, 28)
    >>> generator.picture("2024", seed=7)  # a PIL image, which a notebook shows
    <PIL.Image.Image image mode=L size=448x112 at ...>
    >>> generator.labels("20, 7")
    [2, 0, 7]
    >>> generator.save("digits.safetensors")

    `facts` are what its file says of its making: params, data hash, seed, …; `source` is where it came from.
    """

    def __init__(
        self, model: GenerativeModel, facts: dict[str, Any], source: Path | str = ""
    ) -> None:
        self.model = model
        self.facts = facts
        self.source = str(source)

    def __repr__(self) -> str:
        channels, height, width = self.model.shape
        size = f"{width}×{height} pixels, {'grey' if channels == 1 else 'colour'}"
        origin = self.source or "memory"
        return (
            f"<Generator: {self.classes} classes, {size}, {self.model.description}, from {origin}>"
        )

    def _repr_html_(self) -> str:
        from cgan.models.sampling import encode_png

        names = self.class_names[:MAX_NOTEBOOK_CLASSES]
        png = encode_png(np.asarray(self.picture(list(range(len(names))))))
        words, pictures = repr(self).strip("<>"), {", ".join(names): png}
        return Report(question="What draws?", sentence=words, pictures=pictures).as_html()

    def save(self, path: Path | str) -> None:
        """Write a file that `load` reads: one safetensors file, no pickle, whole or not at all."""
        from cgan.models.model_file import save_generator

        save_generator(path, self.model, self.facts)

    @classmethod
    def load(cls, source: Path | str = DIGITS, device: str = "cpu") -> Generator:
        """Load the package's own (`digits`), or one from a file, or from an MLflow URI:
        `runs:/<id>/generator`, `models:/<name>@champion`. `champion` and `challenger` are short for the
        project's registered model. Raises ModelError when there is no usable generator.

        `device`: cpu, cuda, cuda:1, mps, or auto (cuda where torch finds it); drawings differ by rounding.
        """
        from cgan.models.hardware import find_device
        from cgan.models.model_file import load_generator

        if source in ALIASES or (isinstance(source, str) and _MLFLOW_URI.match(source)):
            with resolve_name(FIND_RUN)(str(source)).generator_file() as path:
                model, facts = load_generator(path)
        else:
            path = BUNDLED if source == DIGITS else Path(source)
            if not path.exists():
                raise ModelError(
                    f"{source}: not found. Expected a file, `{DIGITS}` (the package's own), "
                    f"{' or '.join(ALIASES)}, or in MLflow runs:/RUN_ID/generator or models:/NAME@ALIAS. "
                    f"A project's own file is made by `dvc repro`, or fetched by {DVC_PULL}."
                )
            model, facts = load_generator(path)
        model.to(find_device(device, "device"))
        return cls(model, facts, source)

    @property
    def classes(self) -> int:
        """How many there are; labels are 0 to classes - 1."""
        return self.model.classes

    @property
    def class_names(self) -> list[str]:
        """The name of each class, in the order of the labels; where they have no names, their numbers."""
        return names_in(self.facts, self.classes) or [str(label) for label in range(self.classes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image: (H, W), in colour (H, W, 3)."""
        channels, height, width = self.model.shape
        return (height, width) if channels == 1 else (height, width, channels)

    def draw(self, what: str | int | Sequence[int | str], seed: int = 0) -> ImageArray:
        """Draw an image for each class in a text ("2024") or a list of labels or names: uint8 [N, *shape].
        Equal seeds draw equal images, position by position. Raises CganError for what is no class."""
        labels = self.labels(what)
        _check_seed(seed)
        import torch

        from cgan.models.sampling import to_picture

        return to_picture(self.model.draw(torch.tensor(labels), seed))

    def picture(
        self,
        what: str | int | Sequence[int | str] | None = None,
        seed: int = 0,
        *,
        rows: int = 1,
        scale: int | None = None,
    ) -> Image:
        """The picture that `cgan draw` writes, as a PIL image; with more rows a grid of variants. `what`: as
        of `draw`; None: all classes. `scale` enlarges each pixel so many times. Raises CganError for what is
        no class, or too large a picture."""
        labels = list(range(self.classes)) if what is None else self.labels(what)
        _check_seed(seed)
        from PIL import Image

        from cgan.drawing.picture import compose

        return Image.fromarray(compose(self.model, labels, rows, seed, scale)[1])

    def labels(self, what: str | int | Sequence[int | str]) -> list[int]:
        """The classes that `what` asks for, checked: a text is read as `cgan.drawing.class_names` says."""
        classes = Classes(self.classes, names_in(self.facts, self.classes))
        if isinstance(what, str):
            return classes.labels(what)
        if isinstance(what, int):
            what = [what]
        if labels := [classes.label(position, item) for position, item in enumerate(what)]:
            return labels
        raise CganError("no labels to draw. Give at least one.")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise CganError(f"the seed is {seed}, expected a whole number from 0 to {MAX_SEED}.")


def default_source(project_file: Path) -> tuple[str, str]:
    """The project's generator, or else the package's own, with a note that says so."""
    if project_file.exists() or project_file.is_symlink():  # loading says what is wrong with it
        return str(project_file), ""
    return DIGITS, ", by the generator of digits that comes with cgan"
