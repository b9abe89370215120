"""How much is measured: `short` for minutes, `all` for an hour and a half, `tiny` to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """A training to follow: `who` is a preset or a peer's name; `seconds` limits a peer's."""

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
    peak_s: float
    runs: tuple[Run, ...]
    gan_train_kimg: float  # the pupil's, where each preset gets every metric at its end; 0: none
    reader_rounds: int
    draw_count: int
    draw_rounds: int
    service_s: float
    tracking_rounds: int
    tracking_kimg: float
    tracking_server: bool
    size_s: float  # of one training in the table of sizes
    sizes: tuple[int, ...]
    classes: tuple[int, ...]
    pipeline_rounds: int
    limit: int | None = None
    judge_kimg: float | None = None


PORT_TARGET = (0.88, 1.2)  # what the demo's port was seen to reach in 870 steps, by our judge
SEEDS = (1, 2, 3)
LONG = dict.fromkeys(
    ("PyTorch-GAN cgan (MLP)", "Keras example's networks", "malzantot's (conv)"), 100.0
)

SCALES = {
    "short": Scale(
        name="short",
        rounds=5,
        round_s=1,
        peak_s=1.5,
        runs=(
            Run("fast", probes=7),
            Run("default", probes=6),
            Run("demo", seconds=25, probes=2),
            Run("PyTorch-GAN cgan (MLP)", seconds=10, probes=2),
        ),
        gan_train_kimg=0,
        reader_rounds=2,
        draw_count=10_000,
        draw_rounds=2,
        service_s=20,
        tracking_rounds=2,
        tracking_kimg=20,
        tracking_server=False,
        size_s=2,
        sizes=(5_000, 20_000, 42_000, 84_000),
        classes=(10, 100, 1000),
        pipeline_rounds=1,
    ),
    "all": Scale(
        name="all",
        rounds=9,
        round_s=2,
        peak_s=6,
        runs=(
            Run("fast", SEEDS, probes=14),
            Run("default", SEEDS, probes=12),
            Run("best", SEEDS, probes=12),
            Run("demo", SEEDS, seconds=300, probes=24, until=PORT_TARGET),
            *(Run(name, seconds=seconds, probes=8) for name, seconds in LONG.items()),
        ),
        gan_train_kimg=120,
        reader_rounds=5,
        draw_count=10_000,
        draw_rounds=3,
        service_s=60,
        tracking_rounds=2,
        tracking_kimg=160,
        tracking_server=True,
        size_s=8,
        sizes=(5_000, 10_000, 20_000, 42_000, 84_000),
        classes=(10, 26, 47, 100, 1000),
        pipeline_rounds=3,
    ),
    "tiny": Scale(
        name="tiny",
        rounds=2,
        round_s=0.02,
        peak_s=0.1,
        runs=(
            Run(
                "fast",
                probes=2,
                changes=(("total_kimg", 0.64), ("log_every", 5), ("save_every", 5)),
            ),
            Run("PyTorch-GAN cgan (MLP)", seconds=0.05, probes=1),
        ),
        gan_train_kimg=1,
        reader_rounds=1,
        draw_count=100,
        draw_rounds=1,
        service_s=1,
        tracking_rounds=1,
        tracking_kimg=0.64,
        tracking_server=False,
        size_s=0.05,
        sizes=(300, 600),
        classes=(10, 20),
        pipeline_rounds=1,
        limit=600,
        judge_kimg=1.0,
    ),
}
