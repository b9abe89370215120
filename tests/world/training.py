"""Trainings of ten steps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from cgan.models.hardware import Hardware
from cgan.models.model_file import digest_of
from cgan.params.sections import AutoTrainParams, TrainParams
from cgan.training.auto import resolve
from cgan.training.loop import TrainingResult, train
from world.images import plain, uneven

TINY: dict[str, dict[str, Any]] = {
    "data": {"source": "file", "path": "inbox/digits.csv"},
    "preprocess": {"holdout_fraction": 0.25},
    "train_judge": {"total_kimg": 24.0},
    "train": {
        **{"latent_dim": 4, "generator_width": 4, "discriminator_width": 4, "batch_size": 8},
        **{"total_kimg": 0.08, "ema_half_life_kimg": 0.02, "device": "cpu", "precision": "float32"},
    },
    "evaluate": {"samples": 100, "gan_train_kimg": 0.2},
}
"""Changes to params.yaml with which every stage takes a moment."""

CPU = Hardware(torch.device("cpu"), torch.float32)
DEFAULTS = resolve(AutoTrainParams()).model_dump()
DATA = plain(uneven())


def params_of(**changes: Any) -> TrainParams:
    return resolve(AutoTrainParams(**{**DEFAULTS, **TINY["train"], **changes}))


def digest(trained: TrainingResult) -> str:
    """Of everything that a training leaves, times aside."""
    history = [[*record.values()] for record in trained.history]
    tensors = {"history": torch.tensor(history, dtype=torch.float64)}
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
