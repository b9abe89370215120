"""What a training tells the world about itself. The core knows this class, never a platform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tracker:
    """Receives records; this one forgets them. No call may block on a network or raise because a server is
    away."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Flat params, `{"train.lr": 0.003}`."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values at a step (one generator update)."""

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """A picture uint8 [H, W] or [H, W, 3] at a step."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """A finished file; it is copied before the call returns."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts in words."""
