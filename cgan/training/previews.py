"""Pictures taken during a training: the same latents × classes again and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.files import write_bytes
from cgan.model.sampling import encode_png, image_grid, to_uint8
from cgan.training.updates import TrainState

PREVIEW_ROWS = 8


def preview_steps(count: int, total_steps: int) -> list[int]:
    """Steps 1 and 200, then ever further apart, up to the last step; at most `count` of them."""
    first = [step for step in (1, 200) if step <= total_steps][:count]
    if count > len(first):
        rest = np.geomspace(first[-1], total_steps, count - len(first) + 1)[1:]
        first += [round(step) for step in rest]
    return sorted(set(first))


class Previewer:
    """Pictures of fixed latents × classes, drawn by the averaged generator during training.

    They are kept as files beside the checkpoints, so that a resumed training still has them all.
    """

    def __init__(self, state: TrainState, folder: Path | None) -> None:
        p, classes = state.params, state.generator.architecture.classes
        self.state, self.folder = state, folder / "previews" if folder else None
        self.steps = set(preview_steps(p.previews, p.total_steps))
        generator = torch.Generator().manual_seed(p.seed)
        latents = torch.randn(PREVIEW_ROWS, p.latent_dim, generator=generator)
        device = state.hardware.device
        self.latents = latents.repeat_interleave(classes, dim=0).to(device)
        self.labels = torch.arange(classes, device=device).repeat(PREVIEW_ROWS)
        self._taken: dict[int, bytes] = {}

    @torch.no_grad()
    def take(self, step: int) -> NDArray[np.uint8]:
        """Draw → uint8 [H, W] or [H, W, 3]: one row a latent, one column a class."""
        images = to_uint8(self.state.average(self.latents, self.labels))
        grid = image_grid(images.unflatten(0, (PREVIEW_ROWS, -1)))
        self._taken[step] = encode_png(grid)
        if self.folder:
            write_bytes(self.folder / f"step-{step:06d}.png", self._taken[step])
        return grid

    def taken(self) -> dict[int, bytes]:
        """Step → PNG, those of an earlier, interrupted process included."""
        files = sorted(self.folder.glob("step-*.png")) if self.folder else []
        kept = {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
        return {
            step: png for step, png in sorted((kept | self._taken).items()) if step in self.steps
        }
