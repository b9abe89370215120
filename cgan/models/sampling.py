"""Before a network and behind it: a seed → latents; images → pixels, pictures, PNG.

A network always gets CHUNK images at once, the last chunk padded, and each chunk's latents are one call of
`torch.randn`. So an image depends on the seed, its position and its label alone, not on how many are drawn:
float arithmetic and `torch.randn` both change a little with the number of rows.
"""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.base.files import write_bytes

CHUNK = 64  # images; another number would give other latents, and with them other drawings
ImageArray = NDArray[np.uint8]
"""[H, W] grey or [H, W, 3] colour."""


def draw_latents(seed: int, count: int, latent_dim: int) -> Tensor:
    """The latents float32 [count, latent_dim] of the first `count` positions. They come from torch's RNG on
    the CPU whatever the device, so that devices differ by rounding only."""
    rng = torch.Generator().manual_seed(seed)
    chunks = [torch.randn(CHUNK, latent_dim, generator=rng) for _ in range(0, count, CHUNK)]
    return torch.cat(chunks)[:count]


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] → uint8 0–255, to the nearest, contiguous NCHW."""
    scaled = images.float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8, memory_format=torch.contiguous_format)


def interpolate_latents(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """`steps` latents from `start` to `end` [latent_dim] inclusive, along the great circle.

    Straight lines between Gaussian latents pass too near the origin, where none is ever drawn.
    """
    angle = torch.acos(F.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    progress = torch.linspace(0, 1, steps)[:, None]
    if angle < 1e-4:  # radians: here the line is the circle, and sin(angle) may be 0
        return torch.lerp(start, end, progress)
    mixed = torch.sin((1 - progress) * angle) * start + torch.sin(progress * angle) * end
    return mixed / torch.sin(angle)


def to_picture(images: Tensor) -> ImageArray:
    """uint8 [..., C, H, W] → numpy [..., H, W, C], without the channel where it is grey."""
    array: ImageArray = images.movedim(-3, -1).contiguous().cpu().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def encode_png(picture: ImageArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: Path | str, picture: ImageArray) -> None:
    write_bytes(path, encode_png(picture))
