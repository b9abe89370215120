"""Images that are the same but for trifles."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def moved(images: Tensor, pixels: int) -> Tensor:
    """Each another way, `pixels` at most, with black where it leaves room."""
    random = torch.Generator().manual_seed(0)
    ways = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=random)
    ways[:, 0] = pixels  # none stays where it was
    wide, side = F.pad(images, [pixels] * 4), images.shape[2]
    pairs = zip(wide, (pixels - ways).tolist(), strict=True)
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in pairs])


def noise(images: Tensor, deviation: float) -> Tensor:
    random = torch.Generator().manual_seed(0)
    found = images + deviation * torch.randn(images.shape, generator=random)
    return found.round().clamp(0, 255).to(torch.uint8)


def trifling(images: Tensor) -> Tensor:
    """The same with trifles: a pixel aside, darker or brighter, and noise."""
    random = torch.Generator().manual_seed(0)
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1, generator=random)
    return noise((moved(images, 1) * brightness).clamp(0, 255), 10)
