"""How much is measured: `short` takes minutes, `all` an hour, `tiny` shows that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """A training to follow: `who` is a preset; `seconds` limits the demo's."""

    who: str
    seeds: tuple[int, ...] = (1,)
    seconds: float = float("inf")
    probes: int = 8
    until: tuple[float, float] | None = None  # (accuracy, distance): stop there
    changes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Scale:
    name: str
    rounds: int
    round_s: float  # of one contender in one round
    runs: tuple[Run, ...]
    service_s: float
    pipeline_rounds: int
    limit: int | None = None
    judge_kimg: float | None = None


PORT_TARGET = (0.88, 1.2)  # what the demo's port was seen to reach in 870 steps, by our judge
SEEDS = (1, 2, 3)
SHORT_RUN = (("total_kimg", 0.64), ("log_every", 5), ("save_every", 5))

SCALES = {
    "short": Scale(
        name="short",
        rounds=5,
        round_s=1,
        runs=(
            Run("fast", probes=7),
            Run("default", probes=6),
            Run("demo", seconds=25, probes=2),
        ),
        service_s=20,
        pipeline_rounds=1,
    ),
    "all": Scale(
        name="all",
        rounds=9,
        round_s=2,
        runs=(
            Run("fast", SEEDS, probes=14),
            Run("default", SEEDS, probes=12),
            Run("best", SEEDS, probes=12),
            Run("demo", SEEDS, seconds=300, probes=24, until=PORT_TARGET),
        ),
        service_s=60,
        pipeline_rounds=3,
    ),
    "tiny": Scale(
        name="tiny",
        rounds=2,
        round_s=0.02,
        runs=(Run("fast", probes=2, changes=SHORT_RUN),),
        service_s=1,
        pipeline_rounds=1,
        limit=1000,
        judge_kimg=1.0,
    ),
}
