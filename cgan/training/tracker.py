"""The interface to which a training reports metrics and pictures while it runs."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Names of pictures, with which they come first in MLflow: it sorts its panels by name.
FIRST_LOOK = "A first look"
AT_THE_END, BY_STEP = f"{FIRST_LOOK}/at the end", f"{FIRST_LOOK}/by step"


class Tracker(Protocol):
    """Neither method may raise, or wait for a server."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values at a step (one generator update)."""

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """A picture uint8 [H, W] or [H, W, 3] at a step."""


class NullTracker:
    """Drops what it gets."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        pass
