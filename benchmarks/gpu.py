"""The training step on a CUDA device: images a second by batch, and time to quality."""

from __future__ import annotations

import gc
import statistics
from dataclasses import asdict
from typing import Any

import torch

from cgan.errors import CganError

from .contenders import Ours, timed
from .evaluation_set import EvaluationSet, preset
from .quality import BARS, follow
from .scale import SCALES, SEEDS, SHORT_RUN, Run
from .tables import Check, Result, Table

BATCHES = (64, 256, 1024)
PRESETS = ("fast", "default", "best")
ROUNDS = 5


def require(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise CganError(
            "torch finds no CUDA device here. Run `make bench-gpu` where there is one, or "
            "`python -m benchmarks gpu --device cpu` to see that it would run."
        )


def measure(device: str) -> Result:
    """With `device: cpu` everything runs in small, and the figures mean nothing."""
    trial = device == "cpu"
    scale = SCALES["tiny" if trial else "all"]
    common = EvaluationSet.prepare(scale.limit, scale.judge_kimg)
    table = Table(
        "Training on the GPU: images a second",
        ["preset", "batch", "images/s", "range", "microseconds a step", "seconds to the first step"],
        note="Whole training steps, records read back every 50 steps, synchronised at the end of each "
        f"round; medians of {ROUNDS} rounds of about 2 s.",
    )  # fmt: skip
    rates: list[dict[str, Any]] = []
    for name in ("fast", "default"):
        for batch in BATCHES[: 1 if trial else None]:
            params = preset(
                name, device=device, total_kimg=1_000_000.0, previews=0, batch_size=batch
            )
            ours = Ours(name, common.training, params)
            cycle = 1 if trial else ours.params.log_every * 2
            first = timed(ours, cycle, 1)[0]  # warm-up
            steps = cycle if trial else max(cycle, round(2 / (timed(ours, cycle, 1)[0] / cycle)))
            each = [steps * batch / timed(ours, steps, 1)[0] for _ in range(1 if trial else ROUNDS)]
            rate = statistics.median(each)
            rates.append({"preset": name, "batch": batch, "images_per_s": each, "first_s": first})
            table.add(f"`{name}`", f"{batch}", f"{rate:,.0f}", f"{min(each):,.0f}–{max(each):,.0f}",
                      f"{batch / rate * 1e6:,.0f}", f"{first:.2f}")  # fmt: skip
            del ours
            gc.collect()
    quality, curves = _quality(common, device)
    best = max(statistics.median(r["images_per_s"]) for r in rates if r["batch"] == 64)
    check = Check("100,000 images/s at batch 64 (H100)", f"{best:,.0f}", best >= 100_000)
    return Result([table, quality], [] if trial else [check], {"rates": rates, "curves": curves})


def _quality(common: EvaluationSet, device: str) -> tuple[Table, list[dict[str, Any]]]:
    trial = device == "cpu"
    table = Table(
        "Time to quality on the GPU: seconds of training",
        ["preset", "seed", *(f"accuracy ≥ {a:g}, FID ≤ {d:g}" for a, d in BARS[1:]),
         "at the end: seconds", "accuracy", "FID"],
        note="As on the CPU. The clock includes warm-up.",
    )  # fmt: skip
    curves = []
    for name in PRESETS[: 1 if trial else None]:
        for seed in SEEDS[: 1 if trial else None]:
            small = dict(SHORT_RUN) if trial else {}
            params = preset(name, device=device, seed=seed, previews=0, **small)
            trained = Ours(name, common.training, params)
            run = Run(name, probes=2 if trial else 12)
            curve = follow(common, trained, run, seed, 1, chunk=params.log_every)
            curves.append(asdict(curve))
            end = curve.probes[-1]
            times = [curve.time_to(bar) for bar in BARS[1:]]
            table.add(f"`{name}`", str(seed), *("–" if t is None else f"{t:.2f}" for t in times),
                      f"{end.seconds:.2f}", f"{end.accuracy:.4f}", f"{end.distance:.2f}")  # fmt: skip
    return table, curves
