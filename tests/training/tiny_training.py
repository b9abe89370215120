"""Trainings of ten steps, for the tests of several modules."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from conftest import TINY
from synthetic import make_images
from torch import Tensor, nn

from cgan.images import Images
from cgan.model.hardware import Hardware
from cgan.model.model_file import digest_of
from cgan.params.sections import TrainChoices, TrainParams
from cgan.training.auto import resolve
from cgan.training.loop import TrainingResult, train
from cgan.training.state import Record

CPU = Hardware(torch.device("cpu"), torch.float32)
DEFAULTS = resolve(TrainChoices()).model_dump()


def params_of(**changes: Any) -> TrainParams:
    return resolve(TrainChoices(**{**DEFAULTS, **TINY["train"], **changes}))


def data_of(side: int = 8, channels: int = 1, per_class: int = 12) -> Images:
    images, labels = make_images(per_class, side=side, channels=channels)
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


DATA = data_of()


def rows_of(history: list[Record]) -> Tensor:
    return torch.tensor([[*record.values()] for record in history], dtype=torch.float64)


def digest(trained: TrainingResult) -> str:
    """Of everything that a training leaves, times aside."""
    tensors = {"history": rows_of(trained.history)}
    for name in ("generator", "discriminator"):
        network: nn.Module = getattr(trained, name)
        tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
    for step, png in trained.previews.items():
        tensors[f"preview/{step}"] = torch.frombuffer(bytearray(png), dtype=torch.uint8)
    return digest_of(tensors)


@functools.cache
def straight(params: TrainParams) -> str:
    """Digest of a training without a folder or a stop."""
    return digest(train(DATA, params))


class Recorded(list[tuple[int, dict[str, float]]]):
    """The metrics that a training tells, with their steps."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.append((step, dict(metrics)))


def stop_after(count: int) -> Callable[[], bool]:
    """Asked after every step; says stop after the `count`-th."""
    return iter([*[False] * (count - 1), True]).__next__
