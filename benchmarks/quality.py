"""How soon the drawings are good: curves of (seconds, accuracy, distance), and when a bar is passed.

The clock runs while a contender trains, and stands while it is looked at. For a preset that is
`train()` without files, previews and tracking, from its first step on, warm-up included.
"""

import math
import statistics
from typing import Any

import numpy as np

from cgan.training.loop import LOG_EVERY

from .evaluation_set import DRAW_SEED, EvaluationSet, preset
from .scale import PORT_TARGET, Run, Scale
from .tables import Check, Result, Table, times
from .throughput import FAST, PORT, Ours, threads_of

BARS = (PORT_TARGET, (0.98, 1.5), (0.98, 0.6), (0.98, 0.3))  # (accuracy, distance)
PORT_IMAGES = 870 * 64  # that the port was seen to need to PORT_TARGET, in 170 s of one core
Probe = dict[str, float]  # step, kimg, seconds, cpu_seconds, accuracy, distance
Curve = dict[str, Any]  # who, seed, threads, probes


def first(curve: Curve, bar: tuple[float, float]) -> Probe | None:
    """The first probe that passes: an upper bound, for nobody looked in between."""
    return next((probe for probe in curve["probes"] if _passes(probe, bar)), None)


def _passes(probe: Probe, bar: tuple[float, float]) -> bool:
    return probe["accuracy"] >= bar[0] and probe["distance"] <= bar[1]


def follow(common: EvaluationSet, trained: Ours, run: Run, threads: int) -> list[Probe]:
    """Train, stop the clock at each probe, draw as many digits as are held out, score them."""
    probes: list[Probe] = []
    seconds = cpu_seconds = 0.0
    state, params = trained.state, trained.params
    # A GPU is waited for after each chunk.
    chunk = LOG_EVERY if params.device == "cuda" else 10
    for last_step, last_second in _due(params.total_steps, run, chunk):
        while state.step < last_step and seconds < last_second:
            wall, cpu = trained.train(min(chunk, params.total_steps - state.step), threads)
            seconds, cpu_seconds = seconds + wall, cpu_seconds + cpu
        accuracy, distance = common.score(trained.draw(common.heldout.tensors.labels, DRAW_SEED))
        probe = {"step": state.step, "kimg": state.step * trained.batch / 1000}
        probe |= {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
        probes.append(probe | {"accuracy": accuracy, "distance": distance})
        if run.until and _passes(probes[-1], run.until):
            break
    return probes


def _due(end: int, run: Run, chunk: int) -> list[tuple[float, float]]:
    """(step, second) of each look: by step, or by the clock where the run ends by it."""
    if math.isinf(run.seconds):
        spaced = np.geomspace(max(1, min(150, end // 4)), end, run.probes)[:-1]
        at = sorted({min(end, chunk * math.ceil(step / chunk)) for step in spaced} | {end})
        return [(step, math.inf) for step in at]
    soonest = max(run.seconds / 20, min(run.seconds, 2.0)) if run.probes > 1 else run.seconds
    return [(end, float(at)) for at in np.geomspace(soonest, run.seconds, run.probes)]


def measure(scale: Scale) -> Result:
    common = EvaluationSet.prepare(scale.limit, scale.judge_kimg)
    threads = threads_of(scale.device)
    curves: list[Curve] = []
    for run in scale.runs:
        for seed in run.seeds:
            changes = {"device": scale.device, "seed": seed, **run.changes}
            trained = Ours(common.training, preset(run.who, **changes))
            probes = follow(common, trained, run, threads)
            curves.append({"who": run.who, "seed": seed, "threads": threads, "probes": probes})
            print(
                "  {who}, seed {seed}: {seconds:.1f} s → accuracy {accuracy:.3f}, distance "
                "{distance:.2f}".format(**curves[-1], **probes[-1]),
                flush=True,
            )
    return Result([_table(common, curves)], figures={"curves": curves})


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
        f"{curves[0]['threads']} threads. Mean ± standard deviation over seeds.",
    )  # fmt: skip
    for who in dict.fromkeys(curve["who"] for curve in curves):
        mine = [curve for curve in curves if curve["who"] == who]
        found = [[(first(curve, bar) or {}).get("seconds") for curve in mine] for bar in BARS]
        ends = [curve["probes"][-1] for curve in mine]
        found += [[end[key] for end in ends] for key in ("seconds", "accuracy", "distance")]
        name = PORT if who == "demo" else f"preset `{who}`"
        table.add(name, *map(_spread, found), str(len(mine)))
    return table


def _spread(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        missing = f" by {len(values) - len(found)} of {len(values)}" if found else ""
        return f"not reached{missing}"
    digits = 3 if max(found) <= 1 else 1 if max(found) >= 10 else 2
    text = f"{statistics.fmean(found):.{digits}f}"
    return text + (f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else "")


def compare_with_port(throughput: dict[str, Any], quality: dict[str, Any]) -> Result:
    """How much sooner `fast` is where the demo's port is after 870 steps.

    The port takes minutes to get there. Unless its own curves did, its time is extrapolated: the images
    that it was known to need, divided by the rate measured now.
    """
    promise = "`fast` is where the demo's port is after 170 s of one core at least 30× sooner"
    arrived, port = (
        [first(curve, PORT_TARGET) for curve in quality["curves"] if curve["who"] == who]
        for who in ("fast", "demo")
    )
    if not arrived or None in arrived:
        return Result(checks=[Check(promise, "`fast` did not get there", False)])
    fast_s, fast_kimg = (
        statistics.fmean(probe[key] for probe in arrived if probe) for key in ("seconds", "kimg")
    )
    seen = [probe["kimg"] * 1000 for probe in port if probe]
    measured = len(seen) == len(port) > 0
    one_thread = throughput["images_per_s"]["1"]
    images = statistics.fmean(seen) if measured else PORT_IMAGES
    port_s = images / statistics.median(one_thread[PORT])
    alone_s = fast_kimg * 1000 / statistics.median(one_thread[FAST])
    found = (
        f"{times(port_s / fast_s)} ({fast_s:.1f} s against {port_s:.0f} s of one core, "
        f"{'measured' if measured else 'extrapolated'}; {times(port_s / alone_s)} with one thread each)"
    )
    figures = {"fast_s": fast_s, "port_one_thread_s": port_s, "port_measured": measured}
    return Result(checks=[Check(promise, found, port_s / fast_s >= 30)], figures=figures)
