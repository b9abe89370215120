"""Scales of measuring: `short` takes minutes, `all` an hour, `tiny` shows that it runs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """A training to follow: `who` is a preset; `seconds` limits the demo's."""

    who: str
    seeds: tuple[int, ...] = (1,)
    seconds: float = float("inf")
    probes: int = 8
    until: tuple[float, float] | None = None  # (accuracy, distance): stop there
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    name: str
    rounds: int
    round_s: float  # of one contender in one round
    runs: tuple[Run, ...]
    service_s: float = 0.0
    limit: int | None = None
    judge_kimg: float | None = None
    device: str = "cpu"


PORT_TARGET = (0.88, 1.2)  # what the demo's port was seen to reach in 870 steps, by our judge
SEEDS = (1, 2, 3)
SHORT_RUN = {"total_kimg": 0.64}
ALL_PRESETS = (
    *(Run("fast", SEEDS, probes=14), Run("default", SEEDS, probes=12)),
    Run("best", SEEDS, probes=12),
)
SHORT = (Run("fast", probes=7), Run("default", probes=6), Run("demo", seconds=25, probes=2))
PORT_RUN = Run("demo", SEEDS, seconds=300, probes=24, until=PORT_TARGET)
TRIAL = (Run("fast", probes=2, changes=SHORT_RUN),)
SCALES = {
    scale.name: scale
    for scale in (
        Scale("short", 5, 1, SHORT, service_s=20),
        Scale("all", 9, 2, (*ALL_PRESETS, PORT_RUN), service_s=60),
        Scale("gpu", 5, 2, (*ALL_PRESETS, Run("gpu", SEEDS, probes=12)), device="cuda"),
        Scale("tiny", 2, 0.02, TRIAL, service_s=1, limit=1000, judge_kimg=1.0),
    )
}
