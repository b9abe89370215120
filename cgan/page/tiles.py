"""Images as they travel in a page: data URIs."""

import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.model.sampling import encode_png, picture_of

MAX_FILM_BYTES = 800_000  # more, and the previews are made smaller
FILM_WIDTH = 720


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


def film(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The previews of a training by step, and what was left out of them, in words."""
    files = {int(path.stem.removeprefix("step-")): path for path in folder.glob("step-*.png")}
    large = sum(path.stat().st_size for path in files.values()) > MAX_FILM_BYTES
    frames = [
        {"step": step, "src": _webp(path) if large else _uri("png", path.read_bytes())}
        for step, path in sorted(files.items())
    ]
    return frames, "The previews are reduced here; samples/previews has them in full size." * large


def _webp(path: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        width = min(FILM_WIDTH, picture.width)
        height = max(1, round(picture.height * width / picture.width))
        picture.convert("RGB").resize((width, height)).save(buffer, "WEBP", quality=75)
    return _uri("webp", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
