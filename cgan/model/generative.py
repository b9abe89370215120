"""The interface that a GAN's generator and a sampler without training have in common."""

from itertools import chain

import torch
from torch import Tensor, nn


class GenerativeModel(nn.Module):
    """Draws an image of the class it is asked for. Another kind is a subclass in a module of its own, which
    `cgan.model.model_file` can store and load."""

    @property
    def classes(self) -> int:
        raise AssertionError("a subclass knows its classes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: channels, height, width."""
        raise AssertionError("a subclass knows its shape")

    @property
    def description(self) -> str:
        """What model it is, in a few words."""
        raise AssertionError("a subclass describes itself")

    @property
    def seconds_per_drawing(self) -> float:
        """About how long a core takes for one; 0.0: next to nothing. It is reckoned from sizes and not
        measured, so that decisions by it, such as how many drawings are judged, are the same on each
        machine."""
        return 0.0

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which it draws."""
        return next(chain(self.parameters(), self.buffers())).device

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """An image a label: uint8 [N, C, H, W] on the CPU, for labels int64 [N]. It depends on the seed, its
        position and its label alone, not on how many are drawn."""
        raise AssertionError("a subclass draws")
