"""The interface of all kinds of generators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgan.base.progress import Progress, silent
from cgan.models.kinds import KINDS, GeneratorKind


@dataclass(frozen=True)
class ModelSizes:
    """The facts in every model's file, as JSON; a kind adds those by which it is built again."""

    kind: str  # in KINDS; of a discriminator in DISCRIMINATORS
    classes: int
    channels: int  # of an image, as are height and width
    height: int
    width: int


class GenerativeModel(nn.Module):
    """Draws an image of the class it is asked for. Another kind is a subclass in a module of its own, and a
    line in `cgan.models.kinds`. Its file holds `architecture` and the state dict.

    `runs_in_browser`: a page can draw with it (`cgan.page.weights`). `legibility_param`: the param of `train`
    that, if raised, makes drawings easier to recognise, but less varied; "" where there is none.
    """

    architecture: ModelSizes
    runs_in_browser: ClassVar[bool] = False
    legibility_param: ClassVar[str] = ""

    @classmethod
    def from_file(
        cls, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> GenerativeModel:
        """The model that a file holds. Raises one of `model_file.MISFIT_ERRORS` where the two do not fit."""
        raise NotImplementedError("a subclass is read from its file")

    @classmethod
    def from_images(
        cls, images: Tensor, labels: Tensor, params: Mapping[str, Any]
    ) -> GenerativeModel:
        """An untrained model of images uint8 [N, C, H, W] of every class, their labels int64 [N], and the
        params of `train`, some of which may be `auto`."""
        raise NotImplementedError("a subclass that is not trained is made of images")

    @property
    def params(self) -> dict[str, Any]:
        """The params of an untrained kind, with a value for each `auto`."""
        return {}

    @property
    def kind(self) -> GeneratorKind:
        return KINDS[self.architecture.kind]

    @property
    def classes(self) -> int:
        return self.architecture.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: channels, height, width."""
        a = self.architecture
        return a.channels, a.height, a.width

    @property
    def description(self) -> str:
        """The model in a few words."""
        raise NotImplementedError("a subclass describes itself")

    @property
    def seconds_per_drawing(self) -> float:
        """About how long a core takes for one; 0.0: next to nothing. It is reckoned from sizes, not measured,
        so that decisions by it are the same on each machine."""
        return 0.0

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which it draws."""
        return next(chain(self.parameters(), self.buffers())).device

    def draw(self, labels: Tensor, seed: int, progress: Progress = silent) -> Tensor:
        """One image per label: uint8 [N, C, H, W] on the CPU, for labels int64 [N]. It depends on the seed,
        its position and its label alone."""
        raise NotImplementedError("a subclass draws")

    def interpolation(self, labels: Tensor, steps: int, seed: int) -> Tensor | None:
        """`steps` images between two latents for each label: uint8 [N · steps, C, H, W]. None: it has no
        latents."""
        return None


def class_of(kind: str) -> type[GenerativeModel]:
    """The class of a kind in KINDS."""
    found: type[GenerativeModel] = resolve_name(KINDS[kind].model)
    return found
