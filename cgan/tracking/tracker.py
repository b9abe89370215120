"""What a training tells the world about itself. The core knows this class, never a platform."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Tracker:
    """Receives records; this one forgets them. No call may raise because a server is away."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values at a step (one generator update)."""

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """A picture uint8 [H, W] or [H, W, 3] at a step."""

    def send(self, step: int) -> None:
        """Show what was logged so far, if that is quick."""
