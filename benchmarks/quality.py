"""How soon the drawings are good: curves of (seconds, accuracy, distance), and when a bar is passed.

The clock runs while a contender trains, and stands while it is looked at. For a preset that is
`train()` without files, previews and tracking, from its first step on, warm-up included.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from .contenders import PORT, Ours, timed
from .evaluation_set import DRAW_SEED, EvaluationSet, preset
from .scale import PORT_TARGET, Run, Scale
from .tables import Check, Result, Table, times

BARS = (PORT_TARGET, (0.98, 1.5), (0.98, 0.6), (0.98, 0.3))  # (accuracy, distance)
PORT_IMAGES = 870 * 64  # that the port was seen to need to PORT_TARGET, in 170 s of one core
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

    def first(self, bar: tuple[float, float]) -> Probe | None:
        """The first probe that passes: an upper bound, for nobody looked in between."""
        return next((probe for probe in self.probes if probe.passes(bar)), None)

    def time_to(self, bar: tuple[float, float]) -> float | None:
        found = self.first(bar)
        return found.seconds if found else None


def follow(
    common: EvaluationSet, trained: Ours, run: Run, seed: int, threads: int, chunk: int = CHUNK
) -> Curve:
    """Train, stop the clock at each probe, draw as many digits as are held out, score them."""
    curve = Curve(run.who, seed, threads)
    seconds = cpu_seconds = 0.0
    for last_step, last_second in _due(trained, run, chunk):
        while trained.step < last_step and seconds < last_second:
            steps = min(chunk, trained.params.total_steps - trained.step)
            wall, cpu = timed(trained, steps, threads)
            seconds, cpu_seconds = seconds + wall, cpu_seconds + cpu
        scores = common.score(trained.draw(common.asked, DRAW_SEED))
        kimg = trained.step * trained.batch / 1000
        probe = Probe(trained.step, kimg, round(seconds, 3), round(cpu_seconds, 3), *scores)
        curve.probes.append(probe)
        if run.until and probe.passes(run.until):
            break
    return curve


def _due(trained: Ours, run: Run, chunk: int) -> list[tuple[float, float]]:
    """(step, second) of each look: by step, or by the clock where the run ends by it."""
    end = trained.params.total_steps
    if math.isinf(run.seconds):
        spaced = np.geomspace(max(1, min(150, end // 4)), end, run.probes)[:-1]
        at = sorted({min(end, chunk * math.ceil(step / chunk)) for step in spaced} | {end})
        return [(step, math.inf) for step in at]
    first = max(run.seconds / 20, min(run.seconds, 2.0)) if run.probes > 1 else run.seconds
    return [(end, float(at)) for at in np.geomspace(first, run.seconds, run.probes)]


def measure(scale: Scale) -> Result:
    common = EvaluationSet.prepare(scale.limit, scale.judge_kimg)
    threads = max(1, min(2, torch.get_num_threads()))
    curves = []
    for run in scale.runs:
        for seed in run.seeds:
            params = {"device": "cpu", "seed": seed, "previews": 0, **dict(run.changes)}
            trained = Ours(run.who, common.training, preset(run.who, **params))
            curves.append(curve := follow(common, trained, run, seed, threads))
            last = curve.probes[-1]
            print(
                f"  {run.who}, seed {seed}: {last.seconds:.1f} s → accuracy {last.accuracy:.3f}, "
                f"distance {last.distance:.2f}",
                flush=True,
            )
    figures = {"curves": [asdict(curve) for curve in curves]}
    return Result([_table(common, curves)], [], figures)


def _table(common: EvaluationSet, curves: list[Curve]) -> Table:
    floor, count = common.floor, len(common.heldout)
    table = Table(
        "Time to quality: seconds of training",
        ["who", *(f"accuracy ≥ {a:g}, FID ≤ {d:g}" for a, d in BARS), "at the end: seconds",
         "accuracy", "FID", "seeds"],
        note=f"{common.about}, split once into {len(common.training):,} images for training and {count:,} "
        "held out. The judge is trained once on the training part. FID: Fréchet distance in its features "
        f"between {count:,} drawings and the held-out images, of the same classes; it compares with no "
        f"other judge's. Real images in the drawings' place: accuracy {floor[0]:.4f}, FID {floor[1]:.2f}. "
        "Clock: training steps, warm-up included; a time is that of the first look that passes. "
        f"{curves[0].threads} threads. Mean ± standard deviation over seeds.",
    )  # fmt: skip
    for who in dict.fromkeys(curve.who for curve in curves):
        mine = [curve for curve in curves if curve.who == who]
        ends = [curve.probes[-1] for curve in mine]
        cells = [[curve.time_to(bar) for curve in mine] for bar in BARS]
        cells += [
            [getattr(end, key) for end in ends] for key in ("seconds", "accuracy", "distance")
        ]
        table.add(
            PORT if who == "demo" else f"preset `{who}`", *map(_spread, cells), str(len(mine))
        )
    return table


def read_curves(figures: dict[str, Any]) -> list[Curve]:
    return [
        Curve(**{**curve, "probes": [Probe(**probe) for probe in curve["probes"]]})
        for curve in figures["curves"]
    ]


def _spread(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    missing = f"not reached by {len(values) - len(found)} of {len(values)}"
    if len(found) < len(values):
        return missing if found else "not reached"
    digits = 3 if max(found) <= 1 else 1 if max(found) >= 10 else 2
    text = f"{statistics.fmean(found):.{digits}f}"
    return text + (f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else "")


def compare_with_port(throughput: dict[str, Any], quality: dict[str, Any]) -> Result:
    """How much sooner `fast` is where the demo's port is after 870 steps.

    The port takes minutes to get there. Unless its own curves did, its time is extrapolated: the images
    that it was known to need, divided by the rate measured now.
    """
    promise = "`fast` is where the demo's port is after 170 s of one core at least 30× sooner"
    curves = read_curves(quality)
    fast = [curve.first(PORT_TARGET) for curve in curves if curve.who == "fast"]
    arrived = [probe for probe in fast if probe]
    if not arrived or len(arrived) < len(fast):
        return Result(checks=[Check(promise, "`fast` did not get there", False)])
    port = [curve.first(PORT_TARGET) for curve in curves if curve.who == "demo"]
    seen = [probe.kimg * 1000 for probe in port if probe]
    measured = len(seen) == len(port) > 0
    images = statistics.fmean(seen) if measured else PORT_IMAGES
    one_thread = throughput["images_per_s"]["1"]
    port_s = images / statistics.median(one_thread[PORT])
    alone_s = statistics.fmean(probe.kimg * 1000 for probe in arrived) / statistics.median(
        one_thread["preset `fast`"]
    )
    fast_s = statistics.fmean(probe.seconds for probe in arrived)
    found = (
        f"{times(port_s / fast_s)} ({fast_s:.1f} s against {port_s:.0f} s of one core, "
        f"{'measured' if measured else 'extrapolated'}; {times(port_s / alone_s)} with one thread each)"
    )
    figures = {"fast_s": fast_s, "port_one_thread_s": port_s, "port_measured": measured}
    return Result(checks=[Check(promise, found, port_s / fast_s >= 30)], figures=figures)
