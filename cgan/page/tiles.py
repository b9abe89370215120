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
PREVIEW_WIDTH = 720  # pixels


def tile(image: Tensor, side: int) -> str:
    """uint8 [C, H, W] → a PNG, averaged over areas where it is larger than `side`."""
    return _uri("png", encode_png(picture_of(_within(image, side))))


def photograph(image: Tensor, side: int) -> str:
    """uint8 [C, H, W] → a WebP, which loses a little and is a quarter of a PNG; as large as `tile`."""
    buffer = io.BytesIO()
    Image.fromarray(picture_of(_within(image, side))).convert("RGB").save(
        buffer, "WEBP", quality=85
    )
    return _uri("webp", buffer.getvalue())


def _within(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    scale = side / max(height, width)
    if scale < 1:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        image = F.interpolate(image[None].float(), size, mode="area")[0].round().to(torch.uint8)
    return image


def preview_frames(previews: Mapping[int, bytes]) -> tuple[list[dict[str, Any]], str]:
    """The previews of a training, PNG by step, for a page, and what was left out of them, in words."""
    large = sum(map(len, previews.values())) > MAX_PREVIEW_BYTES
    frames = [
        {"step": step, "src": _webp(png) if large else _uri("png", png)}
        for step, png in sorted(previews.items())
    ]
    return frames, "The previews of the training are shown smaller than they were drawn." * large


def _webp(png: bytes) -> str:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        width = min(PREVIEW_WIDTH, picture.width)
        height = max(1, round(picture.height * width / picture.width))
        picture.convert("RGB").resize((width, height)).save(buffer, "WEBP", quality=75)
    return _uri("webp", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
