"""Who takes part: our presets through our own training step, and a rectified flow as their peer.

The flow is given what ours have, and what got the best drawings in the time of `default` (docs/log.md).
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cgan.data.dataset import Dataset
from cgan.model.hardware import (
    available_threads,
    choose_hardware,
    compute_deterministically,
    keep_freed_memory,
    parts_on_threads,
    set_gradients,
)
from cgan.model.sampling import draw, to_uint8
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.loop import record
from cgan.training.state import TrainState, estimate_batch_norm
from cgan.training.updates import train_step

from .machine import torch_threads

DRAW_BATCH = 250
NO_CLASS = 10  # what the flow is asked for to be guided away from


class Ours:
    """A preset: the step, feed and records of `cgan.training.loop.train`, without files and previews."""

    def __init__(self, name: str, data: Dataset, params: TrainParams) -> None:
        self.name, self.batch, self.params = name, params.batch_size, params
        hardware = choose_hardware(params.device, params.precision)
        self.state = TrainState(data, params, hardware)
        self.feed = Feed(data, params, hardware.device, params.log_every)
        keep_freed_memory()

    @property
    def step(self) -> int:
        return self.state.step

    def train(self, steps: int, threads: int) -> None:
        p, state = self.params, self.state
        with self._computing(threads):
            for _ in range(steps):
                train_step(state, self.feed)
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
        counts = self.feed.labels.cpu().bincount(minlength=network.architecture.classes)
        estimate_batch_norm(network, counts, self.params.seed)
        return draw(network, labels, seed, self.state.hardware.device)


class _FlowBlock(nn.Module):
    """Two convolutions; what is asked for scales and shifts the normed maps before them."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, before, affine=False)
        self.scale_and_shift = nn.Linear(condition, 2 * before)
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.around = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        for layer in (self.scale_and_shift, self.second):  # it begins as the identity
            for weight in layer.parameters():
                nn.init.zeros_(weight)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(condition)[:, :, None, None].chunk(2, dim=1)
        inside = self.first(torch.addcmul(shift, self.norm(maps), 1 + scale)).relu()
        changed: Tensor = self.around(maps) + self.second(inside)
        return changed


class _FlowNetwork(nn.Module):
    """A U-Net at 14 × 14 and 7 × 7: noisy images, their times and classes → velocities."""

    def __init__(self, w: int = 16, condition: int = 128) -> None:
        super().__init__()
        self.of_label = nn.Embedding(NO_CLASS + 1, condition)
        self.of_time = nn.Sequential(
            nn.Linear(64, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.enter = nn.Conv2d(1, w, 4, stride=2, padding=1)
        self.high = _FlowBlock(w, w, condition)
        self.down = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.low = nn.ModuleList(_FlowBlock(2 * w, 2 * w, condition) for _ in range(2))
        self.up = nn.ConvTranspose2d(2 * w, w, 2, stride=2)
        self.joined = _FlowBlock(2 * w, w, condition)
        self.leave = nn.ConvTranspose2d(w, 1, 4, stride=2, padding=1)

    def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        waves = times[:, None] * torch.logspace(0, 3, 32)
        condition = self.of_time(torch.cat([waves.cos(), waves.sin()], dim=1))
        condition = F.silu(condition + self.of_label(labels))
        high = self.high(self.enter(images), condition)
        low = self.down(high)
        for block in self.low:
            low = block(low, condition)
        joined = self.joined(torch.cat([self.up(low), high], dim=1), condition)
        velocities: Tensor = self.leave(F.silu(joined))
        return velocities.float()


class Flow:
    """A rectified flow (Liu et al., arXiv:2209.03003), as small as minRF (github.com/cloneofsimo/minRF): it
    learns the velocity from an image to noise on the straight line between them, and draws along it backwards
    by Euler's steps. Precision, batches in parts, average and falling rate are as ours have them."""

    name = "rectified flow"
    batch, rate = 64, 4e-3
    guidance = 2.0  # without a classifier: Ho & Salimans, arXiv:2207.12598
    draw_steps = 50
    progress = 0.0  # part of the training that is done, where it has an end

    def __init__(self, data: Dataset, seed: int = 1) -> None:
        self.step, self.random = 0, torch.Generator().manual_seed(seed)
        self.images, self.labels = data.images, data.labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _FlowNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.weights = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(self.weights, betas=(0.9, 0.99), fused=True)
        self.hardware = choose_hardware("cpu", "auto")
        keep_freed_memory()

    def train(self, steps: int, threads: int) -> None:
        with torch_threads(threads), parts_on_threads(threads) as parallel:
            for _ in range(steps):
                parts = zip(*(each.chunk(threads) for each in self._batch()), strict=True)
                found = parallel(lambda part: self._gradients(part, 1 / threads), parts)
                set_gradients(self.weights, found)
                falling = min(1.0, max(0.02, (1 - self.progress) / 0.6))
                warm = min(1.0, (self.step + 1) / 100)
                self.optimizer.param_groups[0]["lr"] = self.rate * falling * warm
                self.optimizer.step()
                kept = 0.5 ** (1 / min(10_000 / self.batch, 1 + 0.2 * self.step))
                latest = [weight.detach() for weight in self.weights]
                torch._foreach_lerp_(list(self.average.parameters()), latest, 1 - kept)
                self.step += 1

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, noise, times and classes; a tenth of the classes is not told."""
        rows = torch.randint(len(self.labels), (self.batch,), generator=self.random)
        real = self.images[rows].float().mul_(2 / 255).sub_(1)
        noise = torch.randn(real.shape, generator=self.random)
        times = torch.randn(self.batch, generator=self.random).sigmoid()
        untold = torch.rand(self.batch, generator=self.random) < 0.1
        return real, noise, times, self.labels[rows].masked_fill(untold, NO_CLASS)

    def _gradients(self, part: tuple[Tensor, ...], share: float) -> tuple[Tensor, ...]:
        real, noise, times, labels = part
        with self.hardware.autocast():
            found = self.network(torch.lerp(real, noise, times[:, None, None, None]), times, labels)
        loss = F.mse_loss(found, noise - real) * share
        gradients: tuple[Tensor, ...] = torch.autograd.grad(loss, self.weights)
        return gradients

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """uint8 [N, 1, 28, 28] of the classes."""
        random = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(labels), *self.images.shape[1:], generator=random)
        with parts_on_threads(available_threads()) as parallel:
            parts = parallel(self._drawn, noise.split(DRAW_BATCH), labels.split(DRAW_BATCH))
            return to_uint8(torch.cat(list(parts)))

    @torch.no_grad()
    def _drawn(self, images: Tensor, labels: Tensor) -> Tensor:
        nothing = torch.full_like(labels, NO_CLASS)
        for left in torch.linspace(1, 0, self.draw_steps + 1)[:-1]:
            with self.hardware.autocast():
                asked, guide = (
                    self.average(images, left.expand(len(labels)), each)
                    for each in (labels, nothing)
                )
            images = images - torch.lerp(guide, asked, self.guidance) / self.draw_steps
        return images


Contender = Ours | Flow
PORT = "the demo's port (preset `demo`)"


def timed(contender: Contender, steps: int, threads: int) -> tuple[float, float]:
    """(seconds on the clock, CPU seconds of all threads) of so many steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    contender.train(steps, threads)
    return time.perf_counter() - wall, time.process_time() - cpu
