"""Images as they travel in a page: data URIs."""

import base64
import io

from PIL import Image
from torch import Tensor

from cgan.model.sampling import picture_of

TILE_SIZE = (96, 96)  # pixels, at most
PREVIEW_SIZE = (720, 10_000)


def tile(image: Tensor) -> str:
    """An image uint8 [C, H, W]."""
    return _uri(Image.fromarray(picture_of(image)), TILE_SIZE)


def preview_tile(png: bytes) -> str:
    """A preview of a training, which is a PNG."""
    with Image.open(io.BytesIO(png)) as picture:
        return _uri(picture, PREVIEW_SIZE)


def _uri(picture: Image.Image, size: tuple[int, int]) -> str:
    """A WebP, averaged over areas where it is larger than `size`; one in colours loses a little."""
    picture.thumbnail(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=picture.mode == "L", quality=85, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
