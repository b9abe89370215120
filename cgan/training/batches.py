"""What a step is fed with: a batch by index, latents, the learning rate, the weight of the average.

All of it is a function of the seed, the step and `train.log_every` (latents are drawn for that many
steps at once), and of nothing that ran before. So a checkpoint holds no RNG state, and a resumed
training is the uninterrupted one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cgan.data.dataset import Dataset
from cgan.errors import ParamsError
from cgan.params.sections import TrainParams


class Feed:
    """Batches by index from images that live on the device, with latents and schedules.

    `next()` gives step after step; `seek(step)` goes anywhere. One call of `_fill` prepares `chunk`
    steps; within them the position is a tensor on the device, so that a captured CUDA graph can move.
    """

    def __init__(
        self, data: Dataset, params: TrainParams, device: torch.device, chunk: int
    ) -> None:
        if params.batch_size > len(data.labels):
            raise ParamsError(
                f"params.yaml: `train.batch_size` is {params.batch_size}, and the training part has "
                f"{len(data.labels)} images. Make it smaller."
            )
        self.params, self.chunk = params, chunk
        self.images, self.labels = data.images.to(device), data.labels.to(device)
        # One tensor per quantity, refilled in place: a CUDA graph remembers the addresses.
        self.rows = torch.zeros(chunk, params.batch_size, dtype=torch.int64, device=device)
        self.latents = torch.zeros(chunk, params.batch_size, params.latent_dim, device=device)
        self.schedule = torch.zeros(chunk, 2, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self._loaded = -1
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def seek(self, step: int) -> None:
        """The next batch is the one of `step` (counted from 0)."""
        if step // self.chunk != self._loaded:
            self._fill(step // self.chunk)
        self.position.fill_(step % self.chunk)

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """→ (real float32 [B, C, H, W] in [-1, 1], labels int64 [B], latents [B, latent_dim])."""
        rows = self.rows.index_select(0, self.position).squeeze(0)
        latents = self.latents.index_select(0, self.position).squeeze(0)
        real = self.images.index_select(0, rows).float().mul_(2 / 255).sub_(1)
        return real, self.labels.index_select(0, rows), latents

    def advance(self) -> tuple[Tensor, Tensor]:
        """→ (learning rate, weight of the new generator in the average) of this step; go on."""
        rate, weight = self.schedule.index_select(0, self.position).squeeze(0).unbind()
        self.position += 1
        return rate, weight

    def _fill(self, chunk: int) -> None:
        first, p = chunk * self.chunk, self.params
        steps = range(first, first + self.chunk)
        generator = torch.Generator().manual_seed(p.seed * 1_000_003 + chunk)
        self.latents.copy_(torch.randn(self.latents.shape, generator=generator))
        self.rows.copy_(torch.stack([self._batch(step) for step in steps]))
        self.schedule.copy_(
            torch.tensor([[learning_rate(p, s), average_weight(p, s)] for s in steps])
        )
        self._loaded = chunk

    def _batch(self, step: int) -> Tensor:
        size = self.params.batch_size
        epoch, batch = divmod(step, len(self.labels) // size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.params.seed * 1_000_033 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.labels), generator=generator)
        return self._order[batch * size : (batch + 1) * size]


def learning_rate(params: TrainParams, step: int) -> float:
    """Constant up to `decay_from`, then linear to `final_lr_fraction` at the last step."""
    done = (step + 1) / params.total_steps
    late = max(0.0, done - params.decay_from) / max(1e-9, 1 - params.decay_from)
    return params.lr * (1 - late * (1 - params.final_lr_fraction))


def average_weight(params: TrainParams, step: int) -> float:
    """Weight of the newest generator in the average: short-sighted at first, then by half-life."""
    if params.ema_half_life_kimg == 0:
        return 1.0
    decay: float = 0.5 ** (params.batch_size / 1000 / params.ema_half_life_kimg)
    return 1 - min(decay, (1 + step) / (10 + step))
