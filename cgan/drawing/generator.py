"""The generator for users: three lines from a model file to pictures. Loading one imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.drawing.class_names import Classes, names_in
from cgan.errors import CganError, ModelError
from cgan.project import GENERATOR

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from cgan.model import networks
    from cgan.model.sampling import Picture

DIGITS = "digits"
BUNDLED = Path(__file__).with_name("digits.safetensors")  # made by tools/package_generator.py
MAX_SEED = 2**63 - 1
ALIASES = ("champion", "challenger")
_MLFLOW_URI = re.compile(r"^[a-z][a-z+-]+:/", re.IGNORECASE)


class Generator:
    """A trained generator, ready to draw.

    >>> generator = Generator.load()  # the one of this package, of MNIST's digits
    >>> images = generator.draw("2024", seed=7)  # uint8 [4, H, W]; colour: [4, H, W, 3]
    >>> generator.picture("2024", seed=7)  # a PIL image, which a notebook shows

    `facts` are what its file says of its making: params, data hash, seed, torch version; of the
    package's own also `quality`. `source` is what it was loaded from.
    """

    def __init__(
        self, network: networks.GeneratorNetwork, facts: dict[str, Any], source: Path | str = ""
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
    def load(cls, source: Path | str = DIGITS, device: str = "cpu") -> Generator:
        """The package's own (`digits`), or from a file, or from an MLflow URI: `runs:/<id>/generator`,
        `models:/<name>@champion`.

        `champion` and `challenger` are short for the project's registered model. Raises
        ModelError when there is no usable generator.

        `device`: cpu, cuda, cuda:1, mps, or auto (cuda where torch finds it). Devices draw alike but for
        rounding.
        """
        from cgan.model.model_file import load_generator

        if source in ALIASES:
            from cgan.registry.client import address_of

            source = address_of(str(source))
        if isinstance(source, str) and _MLFLOW_URI.match(source):
            from cgan.registry.client import generator_file

            with generator_file(source) as path:
                network, facts = load_generator(path)
        else:
            path = BUNDLED if source == DIGITS else Path(source)
            if not path.exists() and not path.match(str(GENERATOR)):  # that one is told how to get
                raise ModelError(
                    f"{source}: not found. Expected a file, `{DIGITS}` (the package's own), "
                    f"{' or '.join(ALIASES)}, or in MLflow runs:/RUN_ID/generator or models:/NAME@ALIAS."
                )
            network, facts = load_generator(path)
        from cgan.model.hardware import find_device

        network.to(find_device(device, "device"))
        return cls(network, facts, source)

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return next(self.network.parameters()).device

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
        _check_seed(seed)
        import torch

        from cgan.model.sampling import draw, picture_of

        return picture_of(draw(self.network, torch.tensor(labels), seed, self.device))

    def picture(
        self,
        what: str | Sequence[int | str] | None = None,
        seed: int = 0,
        *,
        rows: int = 1,
        scale: int | None = None,
        smooth: bool = False,
    ) -> Image:
        """What `cgan draw` writes, as a PIL image; with more rows a grid of variants.

        `what`: as of `draw`; None: all classes. `scale` enlarges each pixel so many times, `smooth`
        without visible pixels. Raises CganError for what is no class, or too large a picture.
        """
        labels = list(range(self.classes)) if what is None else self.labels(what)
        _check_seed(seed)
        from PIL import Image

        from cgan.drawing.picture import compose

        return Image.fromarray(compose(self.network, labels, rows, seed, scale, smooth)[1])

    def labels(self, what: str | Sequence[int | str]) -> list[int]:
        """The classes that `what` asks for, checked: a text is read as `cgan.drawing.class_names` says."""
        classes = Classes(self.classes, names_in(self.facts, self.classes))
        if isinstance(what, str):
            return classes.labels(what)
        labels = [classes.label(position, item) for position, item in enumerate(what)]
        if not labels:
            raise CganError("no labels to draw. Give at least one.")
        return labels


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise CganError(f"the seed is {seed}, expected a whole number from 0 to {MAX_SEED}.")


def default_source() -> tuple[str, str]:
    """What `cgan draw` draws with where nobody says: this project's generator, or the package's own; and,
    of the latter, a note that says so."""
    if GENERATOR.exists() or GENERATOR.is_symlink():  # loading says what is wrong with it
        return str(GENERATOR), ""
    note = ", by the generator of digits that comes with cgan"
    if Path("params.yaml").is_file() and Path("dvc.yaml").is_file():
        note += f" ({GENERATOR} is not there yet: `dvc repro` trains this project's own)"
    return DIGITS, note
