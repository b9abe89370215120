"""How soon the drawings are good: curves of (seconds, accuracy, distance), and when a bar is passed.

The clock runs while a contender trains, and stands while it is looked at. For a preset that is
`train()` without files, previews and tracking, from its first step on, warm-up included.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from .contenders import PEERS, PORT, Contender, Ours, timed
from .ground import DRAW_SEED, Ground, preset
from .presets import PRESETS, real_scores, scores, table
from .scale import PORT_TARGET, Run, Scale
from .tables import Check, Result, Table, times

BARS = (PORT_TARGET, (0.98, 1.5), (0.98, 0.6), (0.98, 0.3))  # (accuracy, distance)
PORT_STEPS, PORT_SECONDS, PORT_BATCH = 870, 170.0, 64
CHUNK = 10


@dataclass(frozen=True)
class Probe:
    step: int
    kimg: float
    seconds: float
    cpu_seconds: float
    accuracy: float
    distance: float

    def passes(self, bar: tuple[float, float]) -> bool:
        return self.accuracy >= bar[0] and self.distance <= bar[1]


@dataclass
class Curve:
    who: str
    seed: int
    threads: int
    probes: list[Probe] = field(default_factory=list)

    def time_to(self, bar: tuple[float, float]) -> float | None:
        """Seconds at the first probe that passes: an upper bound, for nobody looked in between."""
        return next((probe.seconds for probe in self.probes if probe.passes(bar)), None)


def contender(ground: Ground, who: str, seed: int, changes: dict[str, Any]) -> Contender:
    for peer in PEERS:
        if peer.name == who:
            return peer(ground.training, seed)
    return Ours(
        who,
        ground.training,
        preset(who, **{"device": "cpu", "seed": seed, "previews": 0, **changes}),
    )


def follow(
    ground: Ground, trained: Contender, run: Run, seed: int, threads: int, chunk: int = CHUNK
) -> Curve:
    """Train, stop the clock at each probe, draw as many digits as are held out, score them."""
    curve = Curve(run.who, seed, threads)
    seconds = cpu_seconds = 0.0
    for due in _due(trained, run, chunk):
        while not due(trained.step, seconds):
            steps = chunk
            if isinstance(trained, Ours):
                steps = min(steps, trained.params.total_steps - trained.step)
            elif seconds == 0 or seconds / trained.step > 0.2:  # slow ones, step by step
                steps = 1
            wall, cpu = timed(trained, steps, threads)
            seconds, cpu_seconds = seconds + wall, cpu_seconds + cpu
        accuracy, distance = ground.score(trained.draw(ground.asked, DRAW_SEED))
        probe = Probe(
            trained.step,
            trained.step * trained.batch / 1000,
            round(seconds, 3),
            round(cpu_seconds, 3),
            round(accuracy, 5),
            round(distance, 4),
        )
        curve.probes.append(probe)
        if run.until and probe.passes(run.until):
            break
    return curve


def _due(trained: Contender, run: Run, chunk: int) -> list[Callable[[int, float], bool]]:
    """When to look: by step for a preset with an end, by the clock for the rest."""
    end = trained.params.total_steps if isinstance(trained, Ours) else math.inf
    if end < math.inf and math.isinf(run.seconds):
        spaced = np.geomspace(max(1, min(150, end // 4)), end, run.probes)[:-1]
        at = sorted({min(end, chunk * math.ceil(step / chunk)) for step in spaced} | {end})
        return [functools.partial(_arrived, step, math.inf) for step in at]
    first = max(run.seconds / 20, min(run.seconds, 2.0)) if run.probes > 1 else run.seconds
    clock = np.geomspace(first, run.seconds, run.probes)
    return [functools.partial(_arrived, end, at) for at in clock]


def _arrived(last_step: float, last_second: float, step: int, seconds: float) -> bool:
    return step >= last_step or seconds >= last_second


def measure(ground: Ground, scale: Scale, say: Any = lambda _: None) -> Result:
    threads = max(1, min(2, torch.get_num_threads()))
    floor = ground.floor
    curves, presets = [], dict[str, list[dict[str, float]]]()
    for run in scale.runs:
        for seed in run.seeds:
            began = time.perf_counter()
            trained = contender(ground, run.who, seed, dict(run.changes))
            curve = follow(ground, trained, run, seed, threads)
            curves.append(curve)
            last = curve.probes[-1]
            say(
                f"  {run.who}, seed {seed}: {last.seconds:.1f} s of training → accuracy "
                f"{last.accuracy:.3f}, distance {last.distance:.2f} "
                f"({time.perf_counter() - began:.0f} s with {len(curve.probes)} probes)"
            )
            if scale.gan_train_kimg and run.who in PRESETS:
                drawn = trained.draw(ground.asked, DRAW_SEED)
                every = {
                    "seed": seed,
                    "seconds": last.seconds,
                    **scores(ground, drawn, ground.asked, scale.gan_train_kimg),
                }
                presets.setdefault(run.who, []).append(every)
                say(f"  {every}")
    result = tell(ground, curves, floor)
    if presets:
        real = real_scores(ground, scale.gan_train_kimg)
        result.tables.insert(0, table(ground, real, presets, scale.gan_train_kimg))
        result.figures |= {"real": real, "presets": presets}
    return result


def tell(ground: Ground, curves: list[Curve], floor: tuple[float, float]) -> Result:
    count = len(ground.heldout)
    bars = Table(
        "Time to quality: seconds of training",
        ["who", *(f"accuracy ≥ {a:g}, FID ≤ {d:g}" for a, d in BARS), "at the end: seconds",
         "accuracy", "FID", "seeds"],
    )  # fmt: skip
    for who in dict.fromkeys(curve.who for curve in curves):
        mine = [curve for curve in curves if curve.who == who]
        ends = [curve.probes[-1] for curve in mine]
        bars.add(
            PORT if who == "demo" else f"preset `{who}`" if _is_ours(who) else who,
            *(_spread([curve.time_to(bar) for curve in mine], "not reached") for bar in BARS),
            _spread([end.seconds for end in ends]),
            _spread([end.accuracy for end in ends]),
            _spread([end.distance for end in ends]),
            str(len(mine)),
        )
    bars.note = (
        f"Protocol. Data: {ground.about}, split once into {len(ground.training):,} images for training "
        f"and {count:,} held out. Judge: our class network, trained once on the training part. FID: "
        f"Fréchet distance in its 128 features between {count:,} drawings and the {count:,} held-out "
        "images; asked for are the held-out images' own classes. It compares with no Inception-FID and "
        f"no other judge's. Real images in the drawings' place: accuracy {floor[0]:.4f}, FID {floor[1]:.2f}. "
        "Clock: training steps alone, from the first one on, warm-up included; it stands while the "
        "drawings are looked at. A time is that of the first look that passes. Drawn is with the averaged "
        "generator where there is one, and with fresh batch-norm statistics. "
        f"{curves[0].threads} threads. Means, ± standard deviation over seeds (weights, batches, latents)."
    )
    curve_table = Table(
        "The curves", ["who", "seed", "steps", "kimg", "seconds", "CPU seconds", "accuracy", "FID"]
    )
    for curve in curves:
        for p in curve.probes:
            curve_table.add(
                curve.who, str(curve.seed), f"{p.step:,}", f"{p.kimg:,.1f}", f"{p.seconds:,.1f}",
                f"{p.cpu_seconds:,.1f}", f"{p.accuracy:.4f}", f"{p.distance:.2f}",
            )  # fmt: skip
    figures = {
        "curves": [asdict(curve) for curve in curves],
        "floor": {"accuracy": floor[0], "distance": floor[1]},
        "heldout_images": count,
        "training_images": len(ground.training),
    }
    return Result([bars, curve_table], [], figures)


def read_curves(figures: dict[str, Any]) -> list[Curve]:
    return [
        Curve(**{**curve, "probes": [Probe(**probe) for probe in curve["probes"]]})
        for curve in figures["curves"]
    ]


def _is_ours(who: str) -> bool:
    return who not in {peer.name for peer in PEERS}


def _spread(values: list[float | None], missing: str = "–") -> str:
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return missing if not found else f"{missing} by {len(values) - len(found)} of {len(values)}"
    digits = 3 if max(found) <= 1 else 1 if max(found) >= 10 else 2
    text = f"{statistics.fmean(found):.{digits}f}"
    return text + (f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else "")


def compare_with_port(throughput: dict[str, Any], quality: dict[str, Any]) -> Result:
    """How much sooner `fast` is where the demo's port is after PORT_STEPS steps.

    The port takes minutes to get there. Unless its own curve passed the bar, its time is its measured
    rate times the steps that it was known to need.
    """
    fast = [curve for curve in read_curves(quality) if curve.who == "fast"]
    port = [curve for curve in read_curves(quality) if curve.who == "demo"]
    ours = [t for curve in fast if (t := curve.time_to(PORT_TARGET)) is not None]
    if len(ours) < len(fast) or not fast:
        return Result(checks=[Check("`fast` reaches the port's quality", "it does not", False)])
    sooner = statistics.fmean(ours)
    rates = {
        threads: {name: statistics.median(each) for name, each in by.items()}
        for threads, by in throughput["images_per_s"].items()
    }
    threads = str(fast[0].threads)
    own_images = statistics.fmean(
        next(p.kimg * 1000 for p in curve.probes if p.passes(PORT_TARGET)) for curve in fast
    )
    passed = [probe for curve in port for probe in curve.probes if probe.passes(PORT_TARGET)]
    measured = len(passed) == len(port) > 0
    images = PORT_STEPS * PORT_BATCH
    if measured:
        images = round(statistics.fmean(probe.kimg * 1000 for probe in passed))
    table = Table(
        f"To where the demo's port is after {PORT_STEPS} steps (accuracy ≥ {PORT_TARGET[0]}, FID ≤ "
        f"{PORT_TARGET[1]})",
        ["on", "port, seconds", "`fast`, seconds", "sooner", "how the port's time was had"],
    )
    alone_port = images / rates["1"][PORT]
    alone_fast = own_images / rates["1"]["preset `fast`"]
    by_rate = "by its rate" if measured else "extrapolated"
    table.add("one thread each", f"{alone_port:.0f}", f"{alone_fast:.1f}",
              times(alone_port / alone_fast), by_rate)  # fmt: skip
    both = images / rates[threads][PORT]
    if measured:
        both = statistics.fmean(probe.seconds for probe in passed)
    table.add(f"{threads} threads each", f"{both:.0f}", f"{sooner:.1f}", times(both / sooner),
              "measured" if measured else "extrapolated")  # fmt: skip
    table.add(
        f"the port one thread, `fast` {threads}", f"{alone_port:.0f}", f"{sooner:.1f}",
        times(alone_port / sooner), by_rate,
    )  # fmt: skip
    if measured:
        table.note = (
            f"The port was trained until a look passed, {len(passed)} seeds, {threads} threads: after "
            f"{images:,} images. One thread: those images by its rate on one thread; the same for `fast`."
        )
    else:
        table.note = (
            f"Extrapolated: the port was seen to need {PORT_STEPS} steps of {PORT_BATCH} images, "
            f"{PORT_SECONDS:.0f} s of one core of a Xeon with AVX-512, for this accuracy and FID; here those "
            "steps divided by the rate measured now. "
            "`fast` on one thread: the images it took, by its own rate on one thread. `make bench-all` "
            "trains the port until it is there, by our judge."
        )
    best = alone_port / sooner
    check = Check(
        "`fast` is where the demo's port is after 170 s of one core at least 30× sooner",
        f"{times(best)} ({sooner:.1f} s against {alone_port:.0f} s of one core; "
        f"{times(alone_port / alone_fast)} with one thread each)",
        best >= 30,
    )
    figures = {"fast_s": sooner, "port_one_thread_s": alone_port, "port_measured": measured}
    return Result([table], [check], figures)
