"""A tracker that keeps everything in memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cgan.tracking.tracker import Tracker


def reopened(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    """What stands for the run that a module reopens."""
    tracker = RecordingTracker()
    monkeypatch.setattr(module, "reopen", lambda: contextlib.nullcontext(tracker))
    return tracker


@dataclass
class RecordingTracker(Tracker):
    """Params are forgotten."""

    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    images: list[tuple[int, str, NDArray[np.uint8]]] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        self.images.append((step, name, image.copy()))

    def log_file(self, path: Path, folder: str = "") -> None:
        self.files.append((folder, path.name))

    def log_model(self, save: Callable[[Path], Any], step: int, facts: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder, "model"))
            self.models += [path.name for path in Path(folder).iterdir()]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)
