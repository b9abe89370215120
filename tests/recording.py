"""A tracker that keeps everything in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class RecordingTracker:
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    images: list[tuple[int, str, NDArray[np.uint8]]] = field(default_factory=list)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        self.images.append((step, name, image.copy()))
