"""The same training step on a CUDA device: images a second by batch, and time to quality."""

from __future__ import annotations

import gc
import statistics
from dataclasses import asdict
from typing import Any

import torch

from cgan.errors import CganError

from .contenders import Ours, timed
from .ground import Ground, preset
from .quality import BARS, follow
from .scale import Run
from .tables import Check, Result, Table

BATCHES = (64, 256, 1024)
PRESETS = ("fast", "default", "best")
SEEDS = (1, 2, 3)
ROUNDS = 5


def require(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise CganError(
            "torch finds no CUDA device here. Run `make bench-gpu` where there is one, or "
            "`python -m benchmarks gpu --device cpu` to see that it would run."
        )


def measure(ground: Ground, device: str, say: Any = lambda _: None) -> Result:
    """With `device: cpu` everything runs in small, and the figures mean nothing."""
    trial = device == "cpu"
    table = Table(
        "Training on the GPU: images a second",
        [
            "preset",
            "batch",
            "images/s",
            "range",
            "microseconds a step",
            "seconds to the first step",
        ],
    )
    rates: list[dict[str, Any]] = []
    for name in ("fast", "default"):
        for batch in BATCHES[: 1 if trial else None]:
            changes: dict[str, Any] = {
                "total_kimg": 1_000_000.0,
                "previews": 0,
                "batch_size": batch,
            }
            ours = Ours(name, ground.training, preset(name, device=device, **changes))
            cycle = 1 if trial else ours.params.log_every * 2
            first = timed(ours, cycle, 1)[0]  # warm-up and capture of a graph
            steps = cycle if trial else max(cycle, round(2 / (timed(ours, cycle, 1)[0] / cycle)))
            each = [steps * batch / timed(ours, steps, 1)[0] for _ in range(1 if trial else ROUNDS)]
            rate = statistics.median(each)
            rates.append({"preset": name, "batch": batch, "images_per_s": each, "first_s": first})
            table.add(f"`{name}`", f"{batch}", f"{rate:,.0f}", f"{min(each):,.0f}–{max(each):,.0f}",
                      f"{batch / rate * 1e6:,.0f}", f"{first:.2f}")  # fmt: skip
            say(f"  {name}, batch {batch}: {rate:,.0f} images/s")
            del ours
            gc.collect()
    table.note = (
        "Whole training steps, records read back every 50 steps, synchronised at the end of each "
        f"round; medians of {ROUNDS} rounds of about 2 s. Device time alone is not told apart from the "
        "host's: what a user waits for is."
    )
    quality, figures = _quality(ground, device, trial, say)
    best = max(
        (statistics.median(r["images_per_s"]) for r in rates if r["batch"] == 64), default=0.0
    )
    check = Check("100,000 images/s at batch 64 (H100)", f"{best:,.0f}", best >= 100_000)
    return Result([table, quality], [] if trial else [check], {"rates": rates, **figures})


def _quality(ground: Ground, device: str, trial: bool, say: Any) -> tuple[Table, dict[str, Any]]:
    table = Table(
        "Time to quality on the GPU: seconds of training",
        ["preset", "seed", *(f"accuracy ≥ {a:g}, FID ≤ {d:g}" for a, d in BARS[1:]),
         "at the end: seconds", "accuracy", "FID"],
    )  # fmt: skip
    curves = []
    for name in PRESETS[: 1 if trial else None]:
        for seed in SEEDS[: 1 if trial else None]:
            small = {"total_kimg": 0.64, "log_every": 5, "save_every": 5} if trial else {}
            params = preset(name, device=device, seed=seed, previews=0, **small)
            trained = Ours(name, ground.training, params)
            run = Run(name, probes=2 if trial else 12)
            curve = follow(ground, trained, run, seed, 1, chunk=params.log_every)
            curves.append(curve)
            end = curve.probes[-1]
            times = [curve.time_to(bar) for bar in BARS[1:]]
            table.add(f"`{name}`", str(seed), *("–" if t is None else f"{t:.2f}" for t in times),
                      f"{end.seconds:.2f}", f"{end.accuracy:.4f}", f"{end.distance:.2f}")  # fmt: skip
            say(
                f"  {name}, seed {seed}: {end.seconds:.1f} s → {end.accuracy:.3f}, {end.distance:.2f}"
            )
    table.note = (
        "Protocol as on the CPU. The clock includes warm-up and graph capture; it stands while drawings "
        "are looked at. The judge is the CPU's."
    )
    return table, {"curves": [asdict(curve) for curve in curves]}
