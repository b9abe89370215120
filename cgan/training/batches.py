"""The batch of each step (images, labels, latents), and the schedules of learning rate and average.

For given data and params, everything random here depends only on the seed and the step. So a checkpoint needs
no RNG state, and a resumed training equals an uninterrupted one.

With `train.max_shift`, reals and fakes are shifted at random before the discriminator sees them: that makes
a small data set harder to memorise (Zhao et al., *DiffAugment*, arXiv:2006.10738). Pixels that leave at one
edge come back at the opposite one, so none is lost, and the opposite shift takes a gradient back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.models.hardware import fits_in_memory, take_rows
from cgan.params.sections import TrainParams

# The random generator of a chunk gets the seed `train.seed` · LATENT_SEED_STRIDE + chunk, that of an epoch
# `train.seed` · ORDER_SEED_STRIDE + epoch: no two chunks, and no two epochs, of trainings with different
# seeds share one before the millionth.
LATENT_SEED_STRIDE, ORDER_SEED_STRIDE = 1_000_003, 1_000_033
FINAL_LR_FRACTION = 0.02  # of `train.lr`, at the last step
CHUNK_STEPS = 50  # for which latents are drawn at once; changing it changes the latents


class Batch(NamedTuple):
    """The inputs of one step, on the device: `real` float32 [B, C, H, W] in [-1, 1], shifted already;
    `labels` int64 [B]; `latents` float32 [B, latent_dim]; `fake_shifts` int64 [B, 2], the pixels down and
    right by which each fake is shifted for the discriminator, or None."""

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake_shifts: Tensor | None

    def split(self, count: int) -> Iterator[Batch]:
        """The batch in `count` parts."""
        shifts = [None] * count if self.fake_shifts is None else self.fake_shifts.chunk(count)
        chunks = (tensor.chunk(count) for tensor in (self.real, self.labels, self.latents))
        return map(Batch, *chunks, shifts)


class Feed:
    """Batches from images that live on the device, or in the host's memory where they do not fit. Latents and
    the order of images are prepared for a chunk of steps at once: one copy to a GPU for all of them."""

    def __init__(self, data: Images, params: TrainParams, device: torch.device) -> None:
        self.params = params
        self.device = device
        pixels, labels, _ = data.tensors
        self.labels = labels.to(device)
        self.pixels = pixels.to(device) if fits_in_memory(pixels, device) else pixels
        self._prepared_chunk = -1
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        chunk, step_in_chunk = divmod(step, CHUNK_STEPS)
        if chunk != self._prepared_chunk:
            self._prepare(chunk)
        real = take_rows(self.pixels, self._pixel_rows[step_in_chunk], self.device)
        real = real.float().mul_(2 / 255).sub_(1)
        labels = self.labels.index_select(0, self._label_rows[step_in_chunk])
        latents = self._latents[step_in_chunk]
        if self._shifts is None:
            return Batch(real, labels, latents, None)
        real_shifts, fake_shifts = self._shifts[step_in_chunk]
        return Batch(shift(real, real_shifts), labels, latents, fake_shifts)

    def _prepare(self, chunk: int) -> None:
        p, steps = self.params, CHUNK_STEPS
        rows = torch.stack([self._rows(chunk * steps + number) for number in range(steps)])
        self._label_rows = rows.to(self.device)
        self._pixel_rows = rows.to(self.pixels.device)
        rng = torch.Generator().manual_seed(p.seed * LATENT_SEED_STRIDE + chunk)
        latents = torch.randn(steps, p.batch_size, p.latent_dim, generator=rng)
        self._latents = latents.to(self.device)
        self._shifts = None
        if p.max_shift:  # drawn after the latents, so that these do not depend on it
            reals_and_fakes, down_and_right = 2, 2
            size = (steps, reals_and_fakes, p.batch_size, down_and_right)
            shifts = torch.randint(-p.max_shift, p.max_shift + 1, size, generator=rng)
            self._shifts = shifts.to(self.device)
        self._prepared_chunk = chunk

    def _rows(self, step: int) -> Tensor:
        """The rows of a step's images, int64 [B]: each epoch shows all images, but for an incomplete last
        batch, in a new order."""
        size = self.params.batch_size
        epoch, batch = divmod(step, len(self.labels) // size)
        if epoch != self._epoch:
            rng = torch.Generator().manual_seed(self.params.seed * ORDER_SEED_STRIDE + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.labels), generator=rng)
        return self._order[batch * size : (batch + 1) * size]


def shift(images: Tensor, shifts: Tensor | None) -> Tensor:
    """Images [N, C, H, W], each moved down and right by its row of `shifts` (int64 [N, 2], pixels), if any.
    What leaves at one edge comes back at the opposite one."""
    if shifts is None:
        return images
    count, channels, height, width = images.shape
    down, right = shifts[:, :1], shifts[:, 1:]
    rows = (torch.arange(height, device=images.device) - down) % height
    columns = (torch.arange(width, device=images.device) - right) % width
    source = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    moved = images.flatten(2).gather(2, source.expand(-1, channels, -1))
    return moved.view(images.shape)


def learning_rate(params: TrainParams, step: int) -> float:
    """A step's learning rate: `lr` up to the fraction `decay_from` of all steps, then falling linearly."""
    progress = (step + 1) / params.total_steps
    decay = max(0.0, progress - params.decay_from) / max(1e-9, 1 - params.decay_from)  # 0 to 1
    return params.lr * (1 - decay * (1 - FINAL_LR_FRACTION))


def ema_weight(params: TrainParams, step: int) -> float:
    """Weight of the newest generator in the average, which forgets half in `ema_half_life_kimg`; at first
    faster, by the warm-up of TensorFlow's `ExponentialMovingAverage`, (1 + step) / (10 + step)."""
    if params.ema_half_life_kimg == 0:
        return 1.0
    decay: float = 0.5 ** (params.batch_size / 1000 / params.ema_half_life_kimg)
    return 1 - min(decay, (1 + step) / (10 + step))
