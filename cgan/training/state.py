"""All that a training changes: networks, optimizers, the averaged generator, and its records."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgan.data.dataset import Dataset
from cgan.model.hardware import Hardware, Map, sharing_weights, without_compiler
from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    ProjectionDiscriminator,
    build_discriminator,
    build_generator,
)
from cgan.params.sections import TrainParams
from cgan.training.batches import Batch, shift
from cgan.training.losses import (
    decision_threshold,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
)

# What is measured in every step, and the columns of a record: means of these over an interval.
STATS = (
    "loss/discriminator",
    "loss/generator",
    "logits/real_mean",
    "logits/fake_mean",
    "accuracy/discriminator_real",
    "accuracy/discriminator_fake",
)
COLUMNS = ("step", "progress/kimg", "progress/learning_rate", *STATS)
# The attributes of a state that a checkpoint holds, the records aside.
NETWORKS = ("generator", "discriminator", "average")
OPTIMIZERS = ("generator_optimizer", "discriminator_optimizer")
RECORDS = ("history", "probes")
Optimizer = torch.optim.Adam | torch.optim.Adadelta


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """The weights that the optimizer updates."""
    weights: list[Tensor] = optimizer.param_groups[0]["params"]
    return weights


@dataclass(frozen=True)
class Part:
    """A part of a batch, with networks that share the weights and have batch-norm state of their own."""

    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork
    hardware: Hardware
    real: Tensor
    labels: Tensor
    latents: Tensor
    fake_shifts: Tensor | None
    penalise: bool

    @property
    def projection(self) -> ProjectionDiscriminator:
        """The discriminator, for updates that TrainParams allows with this kind only."""
        assert isinstance(self.discriminator, ProjectionDiscriminator)
        return self.discriminator

    @cached_property
    def fakes(self) -> Tensor:
        """[B, C, H, W] float32 in [-1, 1], with the generator's graph behind them. Drawn once a step."""
        with self.hardware.autocast():
            fakes: Tensor = self.generator(self.latents, self.labels)
        return fakes.float()

    def as_seen(self, fakes: Tensor) -> Tensor:
        """Fakes as the discriminator sees them: shifted, where `train.max_shift` says so."""
        return fakes if self.fake_shifts is None else shift(fakes, self.fake_shifts)

    def score(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [N] and class logits [N, classes], or None where the network has none."""
        with self.hardware.autocast():
            scores: tuple[Tensor, Tensor | None] = self.discriminator(images, self.labels)
        return scores


class Logits(NamedTuple):
    """What the discriminator said of one part in one step: float32 [N] each, without a graph."""

    real: Tensor
    fake: Tensor
    fake_in_generator_update: Tensor

    def stats(self, objective: str) -> Tensor:
        """STATS. The losses are the adversarial ones: class losses would hide who is ahead."""
        real, fake, threshold = self.real, self.fake, decision_threshold(objective)
        values = (
            discriminator_fake_loss(objective, fake) + discriminator_real_loss(objective, real),
            generator_loss(objective, self.fake_in_generator_update),
            real.mean(),
            fake.mean(),
            (real > threshold).float().mean(),
            (fake <= threshold).float().mean(),
        )
        return torch.stack(values)


class TrainState:
    """Both networks, the averaged generator, both optimizers, and what was recorded so far."""

    def __init__(self, data: Dataset, params: TrainParams, hardware: Hardware) -> None:
        _, channels, height, width = data.images.shape
        image = {"channels": channels, "height": height, "width": width, "classes": data.classes}
        image["max_features"] = params.max_width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed)
            generator = build_generator(
                Architecture(
                    kind=params.generator,
                    features=params.generator_width,
                    latent_dim=params.latent_dim,
                    **image,
                )
            )
            discriminator = build_discriminator(
                Architecture(
                    kind=params.discriminator,
                    features=params.discriminator_width,
                    class_logit_weight=params.class_logit_weight,
                    **image,
                )
            )
        self.params, self.hardware = params, hardware
        self.generator: GeneratorNetwork = generator.to(hardware.device).train()
        self.discriminator: DiscriminatorNetwork = discriminator.to(hardware.device).train()
        self.average: GeneratorNetwork = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_optimizer = self._optimizer(self.generator)
        self.discriminator_optimizer = self._optimizer(self.discriminator)
        # On CUDA one stream computes a whole batch faster than parts of it.
        self.parts = params.cpu_parts if hardware.device.type == "cpu" else 1
        self.networks = [(self.generator, self.discriminator)] + [
            (sharing_weights(self.generator), sharing_weights(self.discriminator))
            for _ in range(1, self.parts)
        ]
        self.map: Map = map
        self.step = 0
        self.stats = torch.zeros(params.log_every, len(STATS), device=hardware.device)
        self.history: list[list[float]] = []
        self.probes: list[list[float]] = []  # step, kimg, and what was measured there
        self._pairs = [
            [t for t in net.state_dict().values() if t.is_floating_point()]
            for net in (self.average, self.generator)
        ]

    def _optimizer(self, network: nn.Module) -> Optimizer:
        p = self.params
        weights = [w for w in network.parameters() if w.requires_grad]
        on_cuda = self.hardware.device.type == "cuda"
        # On the device, like all that a step reads: it waits for nothing.
        rate = torch.tensor(p.lr, device=self.hardware.device)
        if p.optimizer == "adam":
            betas = (p.adam_beta1, p.adam_beta2)
            return without_compiler(torch.optim.Adam)(
                weights, rate, betas, fused=True, capturable=on_cuda
            )
        return without_compiler(torch.optim.Adadelta)(
            weights, lr=p.lr, rho=p.adadelta_rho, eps=p.adadelta_eps, capturable=on_cuda
        )

    def split(self, batch: Batch, penalise: bool) -> list[Part]:
        """A batch → its parts, each with networks that share the weights."""
        count, moved = self.parts, batch.fake_shifts
        pieces = zip(
            self.networks,
            batch.real.chunk(count),
            batch.labels.chunk(count),
            batch.latents.chunk(count),
            [None] * count if moved is None else moved.chunk(count),
            strict=True,
        )
        return [
            Part(generator, discriminator, self.hardware, real, labels, latents, shifts, penalise)
            for (generator, discriminator), real, labels, latents, shifts in pieces
        ]

    def write_stats(self, row: int, logits: list[Logits]) -> None:
        """Write STATS of a step, as means over all its parts, into a row of `stats`."""
        by_part = torch.stack([part.stats(self.params.objective) for part in logits])
        self.stats[row] = by_part.mean(dim=0)

    @property
    def kimg(self) -> float:
        """Thousands of images seen so far."""
        return self.step * self.params.batch_size / 1000

    def set_learning_rate(self, rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @torch.no_grad()
    def update_average(self, weight: float) -> None:
        """average += weight · (generator - average), over weights and batch-norm statistics."""
        average, newest = self._pairs
        change = torch._foreach_sub(newest, average)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(average, change)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs, by name."""
        tensors = {"stats": self.stats}
        for name in RECORDS:
            tensors[name] = torch.tensor(getattr(self, name), dtype=torch.float64)
        for name in NETWORKS:
            network: nn.Module = getattr(self, name)
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name in OPTIMIZERS:
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(weights_of(optimizer)):
                for key, value in optimizer.state[weight].items():
                    tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
        return tensors

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint of a training with the same fingerprint."""
        self.step = step
        self.stats.copy_(tensors["stats"])
        for name in RECORDS:
            setattr(self, name, tensors[name].tolist())
        for name in NETWORKS:
            network: nn.Module = getattr(self, name)
            network.load_state_dict(_below(tensors, f"{name}/"))
        for name in OPTIMIZERS:
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(weights_of(optimizer)):
                # Fused optimizers walk the memory of weights and moments side by side, so the
                # moments must get the weights' strides (channels-last) back.
                optimizer.state[weight] = {
                    key: torch.empty_like(weight).copy_(value)
                    if value.shape == weight.shape
                    else value.to(weight.device)
                    for key, value in _below(tensors, f"{name}/{index}/").items()
                }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@torch.no_grad()
def estimate_batch_norm(
    generator: GeneratorNetwork, counts: Tensor, seed: int, batches: int = 40, size: int = 256
) -> None:
    """Measure batch-norm statistics for the averaged generator: no batch ever went through its weights.

    They are means over `batches` batches of `size` drawings, whose classes are in the mix in which the
    training showed them: `counts`, int64 [classes].
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    labels = labels_in_mix(counts, size).to(device)
    generator.train()
    for _ in range(batches):
        latents = torch.randn(size, generator.architecture.latent_dim, generator=random)
        generator(latents.to(device), labels)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def labels_in_mix(counts: Tensor, size: int) -> Tensor:
    """Labels int64 [size]: each class at equal distances, as often as its count says; in turn where all
    counts are equal."""
    turns = (torch.arange(size) + 0.5) / counts[:, None]
    return turns.flatten().argsort(stable=True)[:size] // size
