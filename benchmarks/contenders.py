"""Who takes part: our presets through our own training step, and the peers' loops written anew.

A peer's networks, loss, optimizer, batch size and order of updates are as its author published them
(the address stands at each); nothing is tuned. They are helped where their author's choice was not
about the model: images lie in memory, there is no DataLoader, and the allocator's settings are ours.
"""

from __future__ import annotations

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cgan.data.dataset import Dataset
from cgan.model.hardware import (
    choose_hardware,
    compute_deterministically,
    keep_freed_memory,
    parts_on_threads,
)
from cgan.model.sampling import draw, to_uint8
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.cuda_graph import stepper
from cgan.training.loop import record
from cgan.training.state import TrainState, estimate_batch_norm

from .machine import torch_threads

DRAW_BATCH = 500


class Contender(Protocol):
    name: str
    batch: int

    @property
    def step(self) -> int: ...

    def train(self, steps: int, threads: int) -> None:
        """Go on for so many steps; all work is done when it returns."""

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """uint8 [N, 1, 28, 28] of the classes; training goes on unharmed."""


class Ours:
    """A preset: the step, feed and records of `cgan.training.loop.train`, without files and previews."""

    def __init__(self, name: str, data: Dataset, params: TrainParams) -> None:
        self.name, self.batch, self.params = name, params.batch_size, params
        hardware = choose_hardware(params.device, params.precision)
        self.state = TrainState(data, params, hardware)
        self.feed = Feed(data, params, hardware.device, params.log_every)
        self._step: Callable[[int], None] | None = None
        keep_freed_memory()

    @property
    def step(self) -> int:
        return self.state.step

    def train(self, steps: int, threads: int) -> None:
        p, state = self.params, self.state
        with self._computing(threads):
            self._step = run_step = self._step or stepper(state, self.feed)
            for index in range(state.step, state.step + steps):
                run_step(index)
                state.step = index + 1
                if state.step % p.log_every == 0:
                    record(state, 1.0, p.log_every)
            if state.hardware.device.type == "cuda":
                torch.cuda.synchronize()

    @contextlib.contextmanager
    def _computing(self, threads: int) -> Iterator[None]:
        state = self.state
        deterministic = torch.are_deterministic_algorithms_enabled()
        compute_deterministically()
        try:
            with (
                torch_threads(threads),
                parts_on_threads(state.parts if threads > 1 else 1) as state.map,
            ):
                yield
        finally:
            torch.use_deterministic_algorithms(deterministic)

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        network = copy.deepcopy(self.state.average)
        estimate_batch_norm(network, self.params.seed)
        return draw(network, labels, seed, self.state.hardware.device)


class Peer(ABC):
    """What the peers have in common: random batches, a step of their own, drawing as they draw."""

    name: str
    batch = 64
    side = 28
    latent_dim = 100
    lowest = -1.0  # of a pixel; the highest is 1
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, data: Dataset, seed: int = 1) -> None:
        self.step = 0
        self.random = torch.Generator().manual_seed(seed)
        self.images, self.labels = data.images, data.labels
        if self.side != 28:
            images = F.interpolate(data.images.float(), self.side, mode="bilinear", antialias=True)
            self.images = images.round().to(torch.uint8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build()
        keep_freed_memory()

    @abstractmethod
    def build(self) -> None:
        """Make networks and optimizers, from torch's global RNG."""

    @abstractmethod
    def update(self, real: Tensor, labels: Tensor) -> None:
        """One step on a batch, as published: real [B, 1, side, side] from `lowest` to 1."""

    @abstractmethod
    def fakes(self, labels: Tensor) -> Tensor:
        """Images [B, 1, side, side] of the classes, with fresh latents."""

    def latents(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, generator=self.random)

    def random_labels(self) -> Tensor:
        return torch.randint(10, (self.batch,), generator=self.random)

    def train(self, steps: int, threads: int) -> None:
        with torch_threads(threads):
            for _ in range(steps):
                rows = torch.randint(len(self.labels), (self.batch,), generator=self.random)
                real = self.images[rows].float().mul_((1 - self.lowest) / 255).add_(self.lowest)
                self.update(real, self.labels[rows])
                self.step += 1

    @torch.no_grad()
    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """In batches, with the batch's own norm statistics: none of them switches to eval mode."""
        # a network copy, or the running statistics of the training would see these drawings
        network, state = self.generator, self.random.get_state()
        self.generator = copy.deepcopy(network)
        self.random.manual_seed(seed)
        images = torch.cat([self.fakes(part) for part in labels.split(DRAW_BATCH)])
        self.generator = network
        self.random.set_state(state)
        if self.side != 28:
            images = F.interpolate(images, 28, mode="bilinear", antialias=True)
        return to_uint8(images.sub(self.lowest).mul(2 / (1 - self.lowest)).sub(1))


class _MlpGenerator(nn.Module):
    def __init__(self, latent_dim: int, pixels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 10)
        layers: list[nn.Module] = [nn.Linear(latent_dim + 10, 128), nn.LeakyReLU(0.2)]
        for before, after in ((128, 256), (256, 512), (512, 1024)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, eps=0.8), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(1024, pixels), nn.Tanh())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(torch.cat([self.embedding(labels), latents], dim=1))
        return images


class _MlpDiscriminator(nn.Module):
    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 10)
        self.layers = nn.Sequential(
            nn.Linear(pixels + 10, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.Dropout(0.4),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.Dropout(0.4),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 1),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.layers(torch.cat([images.flatten(1), self.embedding(labels)], dim=1))
        return scores


class PytorchGan(Peer):
    """github.com/eriklindernoren/PyTorch-GAN, implementations/cgan: MLPs on 32×32 images, least
    squares, Adam 2e-4, the generator first. Drawings are brought to 28×28 for the judge."""

    name = "PyTorch-GAN cgan (MLP)"
    side = 32

    def build(self) -> None:
        pixels = self.side**2
        self.generator = _MlpGenerator(self.latent_dim, pixels)
        self.discriminator = _MlpDiscriminator(pixels)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.for_generator = torch.optim.Adam(self.generator.parameters(), **adam)  # type: ignore[arg-type]
        self.for_discriminator = torch.optim.Adam(self.discriminator.parameters(), **adam)  # type: ignore[arg-type]

    def fakes(self, labels: Tensor) -> Tensor:
        flat: Tensor = self.generator(self.latents(len(labels)), labels)
        return flat.view(-1, 1, self.side, self.side)

    def update(self, real: Tensor, labels: Tensor) -> None:
        valid, fake = torch.ones(self.batch, 1), torch.zeros(self.batch, 1)
        self.for_generator.zero_grad()
        drawn_labels = self.random_labels()
        drawn = self.fakes(drawn_labels)
        F.mse_loss(self.discriminator(drawn, drawn_labels), valid).backward()
        self.for_generator.step()
        self.for_discriminator.zero_grad()
        on_reals = F.mse_loss(self.discriminator(real, labels), valid)
        on_fakes = F.mse_loss(self.discriminator(drawn.detach(), drawn_labels), fake)
        ((on_reals + on_fakes) / 2).backward()
        self.for_discriminator.step()


def _keras_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _KerasGenerator(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.dense = nn.Linear(features, 49 * features)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(features, 128, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 1, 7, padding=3),
            nn.Sigmoid(),
        )

    def forward(self, joined: Tensor) -> Tensor:
        maps = F.leaky_relu(self.dense(joined), 0.2).view(-1, 7, 7, self.features)
        images: Tensor = self.layers(maps.permute(0, 3, 1, 2))
        return images


class _KerasDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),  # "same", as TensorFlow pads
            nn.Conv2d(11, 64, 3, stride=2),
            nn.LeakyReLU(0.2),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(64, 128, 3, stride=2),
            nn.LeakyReLU(0.2),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 1),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        planes = F.one_hot(labels, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
        scores: Tensor = self.layers(torch.cat([images, planes], dim=1))
        return scores


class KerasExample(Peer):
    """keras.io/examples/generative/conditional_gan: its networks and step in PyTorch, so that the
    loop is compared and not the framework. Pixels 0–1, cross-entropy, Adam 3e-4, other latents for
    each update."""

    name = "Keras example's networks"
    latent_dim = 128
    lowest = 0.0

    def build(self) -> None:
        self.generator = _KerasGenerator(self.latent_dim + 10).apply(_keras_init)
        self.discriminator = _KerasDiscriminator().apply(_keras_init)
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.for_generator = torch.optim.Adam(self.generator.parameters(), lr=3e-4, eps=1e-7)
        self.for_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), lr=3e-4, eps=1e-7
        )

    def fakes(self, labels: Tensor) -> Tensor:
        latents = self.latents(len(labels))
        images: Tensor = self.generator(torch.cat([latents, F.one_hot(labels, 10).float()], dim=1))
        return images

    def update(self, real: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            drawn = self.fakes(labels)
        targets = torch.cat([torch.ones(self.batch, 1), torch.zeros(self.batch, 1)])
        scores = self.discriminator(torch.cat([drawn, real]), labels.repeat(2))
        loss = F.binary_cross_entropy_with_logits(scores, targets)
        _descend(loss, self.discriminator, self.for_discriminator)
        scores = self.discriminator(self.fakes(labels), labels)
        loss = F.binary_cross_entropy_with_logits(scores, torch.zeros(self.batch, 1))
        _descend(loss, self.generator, self.for_generator)


def _descend(loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gradients of this network alone, as a gradient tape takes them."""
    weights = list(network.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()


class _FullSizeGenerator(nn.Module):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.of_label = nn.Linear(10, 1000)
        self.dense = nn.Linear(latent_dim + 1000, 64 * 28 * 28)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 5, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 5, padding=2),
            nn.Sigmoid(),
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        condition = self.of_label(F.one_hot(labels, 10).float()).relu()
        maps = self.dense(torch.cat([latents, condition], dim=1)).view(-1, 64, 28, 28)
        images: Tensor = self.layers(maps)
        return images


class _FullSizeDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.of_label = nn.Linear(10, 1000)
        self.convs = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(64 * 28 * 28 + 1000, 1024), nn.ReLU(), nn.Linear(1024, 1), nn.Sigmoid()
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        condition = self.of_label(F.one_hot(labels, 10).float()).relu()
        chances: Tensor = self.head(torch.cat([self.convs(images), condition], dim=1))
        return chances


class Malzantot(Peer):
    """github.com/malzantot/Pytorch-conditional-GANs: convolutions at full size, 100 million weights,
    cross-entropy, SGD 0.01, batch 128. Gradients of the generator's update that fall on the
    discriminator are computed and thrown away, as there."""

    name = "malzantot's (conv)"
    batch = 128
    lowest = 0.0

    def build(self) -> None:
        self.generator = _FullSizeGenerator(self.latent_dim)
        self.discriminator = _FullSizeDiscriminator()
        self.for_generator = torch.optim.SGD(self.generator.parameters(), lr=0.01)
        self.for_discriminator = torch.optim.SGD(self.discriminator.parameters(), lr=0.01)

    def fakes(self, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(self.latents(len(labels)), labels)
        return images

    def update(self, real: Tensor, labels: Tensor) -> None:
        valid, fake = torch.ones(self.batch, 1), torch.zeros(self.batch, 1)
        chances = self.discriminator(real, labels)
        self.for_discriminator.zero_grad()
        F.binary_cross_entropy(chances, valid).backward()
        drawn_labels = self.random_labels()
        chances = self.discriminator(self.fakes(drawn_labels), drawn_labels)
        F.binary_cross_entropy(chances, fake).backward()
        self.for_discriminator.step()
        drawn_labels = self.random_labels()
        chances = self.discriminator(self.fakes(drawn_labels), drawn_labels)
        loss = F.binary_cross_entropy(chances, valid)
        self.for_generator.zero_grad()
        loss.backward()
        self.for_generator.step()


PEERS: tuple[type[Peer], ...] = (PytorchGan, KerasExample, Malzantot)
PORT = "the demo's port (preset `demo`)"


def timed(contender: Contender, steps: int, threads: int) -> tuple[float, float]:
    """(seconds on the clock, CPU seconds of all threads) of so many steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    contender.train(steps, threads)
    return time.perf_counter() - wall, time.process_time() - cpu
