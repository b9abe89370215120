"""Images a second of every contender's training step, measured in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from cgan.data.dataset import Dataset

from .contenders import PORT, Ours, timed
from .evaluation_set import EvaluationSet, preset
from .scale import Scale
from .tables import Check, Result, Table, times

ENDLESS = {"total_kimg": 1_000_000.0, "previews": 0}
Rates = dict[str, list[float]]  # of each contender, one a round


def contenders(data: Dataset) -> list[Ours]:
    names = {"preset `fast`": "fast", "preset `default`": "default", PORT: "demo"}
    return [Ours(who, data, preset(p, **ENDLESS, device="cpu")) for who, p in names.items()]


def measure(scale: Scale) -> Result:
    common = EvaluationSet.prepare(scale.limit, scale.judge_kimg)
    everyone = contenders(common.training)
    cores = max(1, min(2, torch.get_num_threads()))
    rates: dict[int, Rates] = {}
    work: Rates = {}  # images a CPU second, of the last setting
    for threads in sorted({1, cores}):
        steps = {c.name: _steps_in(c, scale.round_s, threads) for c in everyone}
        rates[threads], work = {c.name: [] for c in everyone}, {c.name: [] for c in everyone}
        for _ in range(scale.rounds):
            for c in everyone:
                wall, cpu = timed(c, steps[c.name], threads)
                rates[threads][c.name].append(steps[c.name] * c.batch / wall)
                work[c.name].append(steps[c.name] * c.batch / max(cpu, 1e-9))
    return tabulated(rates, work, cores, common.about)


def _steps_in(contender: Ours, seconds: float, threads: int) -> int:
    """How many steps take about so long; warms up on the way."""
    wall, _ = timed(contender, 1, threads)
    if wall < seconds:
        count = max(1, min(10, round(seconds / wall)))
        wall = timed(contender, count, threads)[0] / count
    return max(1, round(seconds / wall))


def ratios(of: Sequence[float], to: Sequence[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the ratios within each round."""
    each = [a / b for a, b in zip(of, to, strict=True)]
    return statistics.median(each), min(each), max(each)


def tabulated(rates: dict[int, Rates], work: Rates, cores: int, about: str) -> Result:
    table = Table(
        "Training: images a second",
        ["who", f"images/s, {cores} threads", "to the port", "range", "images/s, 1 thread",
         "to the port", "images per CPU second"],
        note="Whole training steps (both networks updated, batch and latents drawn, records kept), "
        f"on {about}. "
        f"{len(rates[cores][PORT])} rounds, everyone in turn in each; medians, and the median of each "
        "round's ratio with its range. Our presets compute in the hardware's best precision (bfloat16 "
        "where it has it); the port in float32, as it was written.",
    )  # fmt: skip
    for name, own in rates[cores].items():
        middle, low, high = ratios(own, rates[cores][PORT])
        table.add(
            name,
            f"{statistics.median(own):,.0f}",
            times(middle),
            f"{times(low)}–{times(high)}",
            f"{statistics.median(rates[1][name]):,.0f}",
            times(ratios(rates[1][name], rates[1][PORT])[0]),
            f"{statistics.median(work[name]):,.0f}",
        )
    middle, low, high = ratios(rates[cores]["preset `fast`"], rates[cores][PORT])
    check = Check(
        "`fast` trains at least 8× the images/s of the demo's port",
        f"{times(middle)} (rounds: {times(low)}–{times(high)}) with {cores} threads",
        middle >= 8,
    )
    by_threads = {str(threads): each for threads, each in rates.items()}
    return Result([table], [check], {"images_per_s": by_threads, "images_per_cpu_s": work})
