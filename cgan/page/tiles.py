"""Images as they travel in a page: sheets of equal tiles, and pictures as data URIs."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

COLUMNS = 25  # of a sheet
MAX_FILM_BYTES = 800_000  # more, and the previews are made smaller
FILM_WIDTH = 720


def sheet(images: Tensor, side: int) -> dict[str, Any]:
    """uint8 [N, C, H, W] → one PNG of N tiles, none larger than `side` × `side`, row by row."""
    images = shrunk(images, side)
    count, channels, height, width = images.shape
    columns = max(1, min(COLUMNS, count))
    rows = max(1, math.ceil(count / columns))
    whole = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    whole[:count] = images
    laid = whole.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    picture = laid.reshape(rows * height, columns * width, channels).numpy()
    src = _png(Image.fromarray(picture[..., 0] if channels == 1 else picture))
    return {"src": src, "count": count, "columns": columns, "width": width, "height": height}


def shrunk(images: Tensor, side: int) -> Tensor:
    """uint8 [N, C, H, W], averaged over areas where they are larger than `side`."""
    height, width = images.shape[2:]
    scale = side / max(height, width)
    if scale >= 1 or not len(images):
        return images
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return F.interpolate(images.float(), size=size, mode="area").round().to(torch.uint8)


def film(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The previews of a training by step, and what was left out of them, in words."""
    files = {int(path.stem.removeprefix("step-")): path for path in folder.glob("step-*.png")}
    large = sum(path.stat().st_size for path in files.values()) > MAX_FILM_BYTES
    found = []
    for step, path in sorted(files.items()):
        with Image.open(path) as picture:
            src = _webp(picture) if large else _uri("png", path.read_bytes())
            size = {"width": picture.width, "height": picture.height}
        found.append({"step": step, "src": src, **size})
    return found, "The previews are made smaller, and are in full size in samples/previews." * large


def _webp(picture: Image.Image) -> str:
    width = min(FILM_WIDTH, picture.width)
    height = max(1, round(picture.height * width / picture.width))
    buffer = io.BytesIO()
    picture.convert("RGB").resize((width, height)).save(buffer, "WEBP", quality=75)
    return _uri("webp", buffer.getvalue())


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _uri("png", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
