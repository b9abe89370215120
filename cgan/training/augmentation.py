"""What the discriminator sees is shifted at random, reals and fakes alike, so that few images last longer.

- The same kind of shift for both: Zhao et al., *DiffAugment* (arXiv:2006.10738). The generator is asked for
  unshifted images all the same, because every shift is as likely for fakes as for reals.
- A shift runs round the edge (Karras et al., arXiv:2006.06676, appendix B, do the same with reflections). So
  it moves pixels and loses none, and a gradient goes back by the opposite shift.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Images [N, C, H, W], each moved by its row of `shifts` (int64 [N, 2]), round the edge."""
    count, channels, height, width = images.shape
    down, right = shifts[:, :1], shifts[:, 1:]
    rows = (torch.arange(height, device=images.device) - down) % height
    columns = (torch.arange(width, device=images.device) - right) % width
    place = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    moved = images.flatten(2).gather(2, place.expand(-1, channels, -1))
    return moved.view(images.shape)
