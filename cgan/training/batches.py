"""What a step is fed with: images, labels and latents, and the schedules: learning rate, average, R1.

For given data and params, everything random here depends only on the seed, the step and
`train.log_every` (latents are drawn for that many steps at once). So a checkpoint needs no RNG state,
and a resumed training equals an uninterrupted one.

What the discriminator sees is shifted at random, reals and fakes alike, so that few images last longer.

- The same kind of shift for both: Zhao et al., *DiffAugment* (arXiv:2006.10738). The generator is asked for
  unshifted images all the same, because every shift is as likely for fakes as for reals.
- A shift runs round the edge (Karras et al., arXiv:2006.06676, appendix B, do the same with reflections). So
  it moves pixels and loses none, and a gradient goes back by the opposite shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.errors import ParamsError
from cgan.images import Images
from cgan.model.hardware import fits_in_memory, rows_on
from cgan.params.sections import TrainParams
from cgan.settings import setting


class Batch(NamedTuple):
    """What one step is fed with, all of it on the device."""

    real: Tensor
    """float32 [B, C, H, W] in [-1, 1], as the discriminator sees it."""
    labels: Tensor
    """int64 [B]."""
    latents: Tensor
    """float32 [B, latent_dim]."""
    fake_shifts: Tensor | None
    """int64 [B, 2], down and right: by how many pixels each fake is shifted for the discriminator. `real` is
    shifted already. None: no shifts."""

    def split(self, count: int) -> Iterator[Batch]:
        """The batch in `count` parts."""
        pieces = ([None] * count if whole is None else whole.chunk(count) for whole in self)
        return map(Batch, *pieces)


class Feed:
    """Batches from images that live on the device, or in the host's memory where they do not fit.

    `chunk` steps are prepared at once: on a GPU one copy to the device for all of them.
    """

    def __init__(self, data: Images, params: TrainParams, device: torch.device, chunk: int) -> None:
        require_batch(data, params)
        self.params, self.device, self.chunk = params, device, chunk
        images, labels, _ = data.tensors
        self.labels = labels.to(device)
        self.images = images.to(device) if fits_in_memory(images, device) else images
        self._prepared_chunk = -1
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        chunk, position = divmod(step, self.chunk)
        if chunk != self._prepared_chunk:
            self._prepare(chunk)
        rows, latents = self._rows[position], self._latents[position]
        real = rows_on(self.device, self.images, self._image_rows[position])
        real = real.float().mul_(2 / 255).sub_(1)
        real_shifts, fake_shifts = (None, None) if self._shifts is None else self._shifts[position]
        labels = self.labels.index_select(0, rows)
        return Batch(shift(real, real_shifts), labels, latents, fake_shifts)

    def _prepare(self, chunk: int) -> None:
        p, size, max_shift = self.params, self.params.batch_size, self.params.max_shift
        steps = range(chunk * self.chunk, (chunk + 1) * self.chunk)
        rows = torch.stack([self._rows_of(step) for step in steps])
        self._rows, self._image_rows = rows.to(self.device), rows.to(self.images.device)
        # A prime above a million: no two seeds of a training meet before the millionth chunk.
        random = torch.Generator().manual_seed(p.seed * 1_000_003 + chunk)
        latents = torch.randn(self.chunk, size, p.latent_dim, generator=random)
        self._latents = latents.to(self.device)
        # Drawn after the latents, from the same generator: so latents do not depend on `max_shift`.
        shifts = torch.randint(
            -max_shift, max_shift + 1, (self.chunk, 2, size, 2), generator=random
        )
        self._shifts = shifts.to(self.device) if max_shift else None
        self._prepared_chunk = chunk

    def _rows_of(self, step: int) -> Tensor:
        size = self.params.batch_size
        epoch, batch = divmod(step, len(self.labels) // size)
        if epoch != self._epoch:
            random = torch.Generator().manual_seed(self.params.seed * 1_000_033 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.labels), generator=random)
        return self._order[batch * size : (batch + 1) * size]


def require_batch(data: Images, params: TrainParams) -> None:
    """Raises ParamsError for a batch of more images than there are."""
    if params.batch_size > len(data):
        raise ParamsError(
            f"{setting('train.batch_size', params.batch_size)} is more than there are images to train on: "
            f"{len(data)}. Set {setting('train.batch_size', 'auto')}, or so many or less."
        )


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
    """Constant up to `decay_from`, then linear to `final_lr_fraction` at the last step."""
    done = (step + 1) / params.total_steps
    decayed = max(0.0, done - params.decay_from) / max(1e-9, 1 - params.decay_from)
    return params.lr * (1 - decayed * (1 - params.final_lr_fraction))


def ema_weight(params: TrainParams, step: int) -> float:
    """Weight of the newest generator in the average.

    The average forgets half in `ema_half_life_kimg` (as in StyleGAN2's code). At first it forgets faster,
    by the warm-up of TensorFlow's `ExponentialMovingAverage`, (1 + step) / (10 + step).
    """
    if params.ema_half_life_kimg == 0:
        return 1.0
    decay: float = 0.5 ** (params.batch_size / 1000 / params.ema_half_life_kimg)
    return 1 - min(decay, (1 + step) / (10 + step))


def r1_is_due(params: TrainParams, step: int) -> bool:
    """Whether R1 joins the discriminator's loss at this step: once in `r1_every` steps."""
    return params.r1_gamma > 0 and step % params.r1_every == 0
