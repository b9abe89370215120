"""Images a second of every contender's training step, measured in turns."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence

import torch

from .contenders import PEERS, PORT, Contender, Malzantot, Ours, flop_per_image, timed
from .ground import Ground, preset
from .machine import conv_peak
from .scale import Scale
from .tables import Check, Result, Table, times

ENDLESS = {"total_kimg": 1_000_000.0, "previews": 0}


def contenders(ground: Ground, small: bool) -> list[Contender]:
    data = ground.training
    ours: list[Contender] = [
        Ours(f"preset `{name}`", data, preset(name, **ENDLESS, device="cpu"))
        for name in ("fast", "default")
    ]
    port = Ours(PORT, data, preset("demo", **ENDLESS, device="cpu"))
    # its 100 million weights are no trial for a test machine
    return [*ours, port, *(peer(data) for peer in PEERS if not (small and peer is Malzantot))]


def measure(ground: Ground, scale: Scale) -> Result:
    everyone = contenders(ground, scale.name == "tiny")
    cores = max(1, min(2, torch.get_num_threads()))
    settings = sorted({1, cores})
    flop = {c.name: flop_per_image(c) for c in everyone}
    rates: dict[int, dict[str, list[float]]] = {}
    work: dict[str, list[float]] = {}
    for threads in settings:
        steps = {c.name: _steps_in(c, scale.round_s, threads) for c in everyone}
        rates[threads] = {c.name: [] for c in everyone}
        for _ in range(scale.rounds if threads == cores else -(-scale.rounds // 2)):
            for c in everyone:
                wall, cpu = timed(c, steps[c.name], threads)
                images = steps[c.name] * c.batch
                rates[threads][c.name].append(images / wall)
                if threads == cores:
                    work.setdefault(c.name, []).append(images / max(cpu, 1e-9))
    peaks = {
        precision: conv_peak(getattr(torch, precision), cores, scale.peak_s)
        for precision in ("bfloat16", "float32")
    }
    del everyone
    gc.collect()
    return tell(rates, work, flop, peaks, cores, scale.rounds, ground.about)


def _steps_in(contender: Contender, seconds: float, threads: int) -> int:
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


def tell(
    rates: dict[int, dict[str, list[float]]],
    work: dict[str, list[float]],
    flop: dict[str, float],
    peaks: dict[str, float],
    cores: int,
    rounds: int,
    about: str,
) -> Result:
    table = Table(
        "Training: images a second",
        ["who", f"images/s, {cores} threads", "to the port", "range", "images/s, 1 thread",
         "to the port", "images per CPU second", "MFLOP an image", "of the bf16 peak",
         "of the fp32 peak"],
    )  # fmt: skip
    has_bfloat16 = peaks["bfloat16"] > peaks["float32"]  # else it is emulated
    for name, own in rates[cores].items():
        rate = statistics.median(own)
        middle, low, high = ratios(own, rates[cores][PORT])
        alone, _, _ = ratios(rates[1][name], rates[1][PORT])
        done = rate * flop[name]
        table.add(
            name,
            f"{rate:,.0f}",
            times(middle),
            f"{times(low)}–{times(high)}",
            f"{statistics.median(rates[1][name]):,.0f}",
            times(alone),
            f"{statistics.median(work[name]):,.0f}",
            f"{flop[name] / 1e6:,.1f}",
            f"{done / peaks['bfloat16']:.1%}" if has_bfloat16 else "–",
            f"{done / peaks['float32']:.1%}",
        )
    table.note = (
        f"Whole training steps (both networks updated, batch and latents drawn, records kept), on {about}. "
        f"{rounds} rounds, everyone in turn in each; medians, and the median of each round's ratio with "
        "its range. Our presets compute in the hardware's best precision (bfloat16 where it has it), "
        "the port and the peers in float32, as they were written. FLOP are those of matrix products and "
        f"convolutions. Peak: the fastest 3×3 convolution that {cores} threads reach here, "
        f"{peaks['bfloat16'] / 1e12:.2f} TFLOP/s in bfloat16 and {peaks['float32'] / 1e12:.2f} in float32."
    )
    middle, low, high = ratios(rates[cores]["preset `fast`"], rates[cores][PORT])
    check = Check(
        "`fast` trains at least 8× the images/s of the demo's port",
        f"{times(middle)} (rounds: {times(low)}–{times(high)}) with {cores} threads",
        middle >= 8,
    )
    return Result(
        [table],
        [check],
        {
            "images_per_s": {str(threads): by for threads, by in rates.items()},
            "images_per_cpu_s": work,
            "flop_per_image": flop,
            "conv_peak_flop_per_s": peaks,
        },
    )
