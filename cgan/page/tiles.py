"""Images as they travel in a page: data URIs."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.model.sampling import encode_png, picture_of

MAX_PREVIEW_BYTES = 800_000  # of all together; larger previews are made smaller
MAX_PREVIEW_WIDTH = 720  # pixels, of a preview that is made smaller


def tile(image: Tensor, side: int) -> str:
    """An image uint8 [C, H, W] as a PNG, averaged over areas where it is larger than `side`."""
    return _uri("png", encode_png(picture_of(_downscale(image, side))))


def photograph(image: Tensor, side: int) -> str:
    """An image uint8 [C, H, W] as a WebP, as large as `tile`: it loses a little and is a quarter of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture_of(_downscale(image, side))).convert("RGB").save(
        buffer, "WEBP", quality=85
    )
    return _uri("webp", buffer.getvalue())


def _downscale(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    scale = side / max(height, width)
    if scale < 1:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        image = F.interpolate(image[None].float(), size, mode="area")[0].round().to(torch.uint8)
    return image


def preview_frames(previews: Mapping[int, bytes]) -> tuple[list[dict[str, Any]], str]:
    """The previews of a training, PNG by step, for a page, and a note where they were made smaller."""
    large = sum(map(len, previews.values())) > MAX_PREVIEW_BYTES
    frames = [
        {"step": step, "src": _webp(png) if large else _uri("png", png)}
        for step, png in sorted(previews.items())
    ]
    note = "The previews of the training are shown smaller than they were drawn." if large else ""
    return frames, note


def _webp(png: bytes) -> str:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        width = min(MAX_PREVIEW_WIDTH, picture.width)
        height = max(1, round(picture.height * width / picture.width))
        picture.convert("RGB").resize((width, height)).save(buffer, "WEBP", quality=75)
    return _uri("webp", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
