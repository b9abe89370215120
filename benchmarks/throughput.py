"""Images a second of every contender's training step, measured in turns."""

import contextlib
import copy
import statistics
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.models.hardware import (
    choose_hardware,
    compute_deterministically,
    keep_freed_memory,
    parts_on_threads,
)
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.loop import LOG_EVERY, record_interval
from cgan.training.state import TrainState, estimate_batch_norm
from cgan.training.update import train_step

from .evaluation_set import EvaluationSet, preset
from .scale import Scale
from .tables import Check, Result, Table, times

FAST, PORT = "preset `fast`", "the demo's port (preset `demo`)"
GPU_BATCHES = (64, 256, 1024)
Rates = dict[str, list[float]]  # of each contender, one a round


class Ours:
    """A preset: the step, feed and records of `cgan.training.loop.train`, without files and previews."""

    def __init__(self, data: Images, params: TrainParams) -> None:
        self.batch, self.params = params.batch_size, params
        hardware = choose_hardware(params.device, params.precision)
        self.state = TrainState(data, params, hardware)
        self.feed = Feed(data, params, hardware.device, LOG_EVERY)
        keep_freed_memory()

    def train(self, steps: int, threads: int) -> tuple[float, float]:
        """(seconds on the clock, CPU seconds of all threads) of so many steps."""
        wall, cpu = time.perf_counter(), time.process_time()
        with self._computing(threads):
            for _ in range(steps):
                train_step(self.state, self.feed)
                if self.state.step % LOG_EVERY == 0:
                    record_interval(self.state, 1.0, LOG_EVERY)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu

    @contextlib.contextmanager
    def _computing(self, threads: int) -> Iterator[None]:
        state, before = self.state, torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        compute_deterministically()
        torch.set_num_threads(threads)
        try:
            with parts_on_threads(state.part_count if threads > 1 else 1) as state.map_parts:
                yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(deterministic)

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        network = copy.deepcopy(self.state.generator_ema)
        counts = self.feed.labels.cpu().bincount(minlength=network.architecture.classes)
        with self._computing(2):
            estimate_batch_norm(network, counts, self.params.seed)
            return network.draw(labels, seed)


def contenders(data: Images, device: str) -> dict[str, Ours]:
    """Two presets and the demo's port; on a GPU the presets in batches of several sizes."""
    chosen: dict[str, tuple[str, dict[str, int]]] = {PORT: ("demo", {})}
    for name in ("fast", "default"):
        if device == "cpu":
            chosen[f"preset `{name}`"] = name, {}
        else:
            for batch in GPU_BATCHES:
                chosen[f"preset `{name}`, batch {batch}"] = name, {"batch_size": batch}
    if device != "cpu":
        chosen["preset `gpu`"] = "gpu", {}
    endless = {"total_kimg": 1_000_000.0, "device": device}
    return {
        who: Ours(data, preset(name, **endless, **changes))
        for who, (name, changes) in chosen.items()
    }


def threads_of(device: str) -> int:
    return max(1, min(2, torch.get_num_threads())) if device == "cpu" else 1


def measure(scale: Scale) -> Result:
    common = EvaluationSet.prepare(scale.limit, scale.judge_kimg)
    everyone = contenders(common.training, scale.device)
    most = threads_of(scale.device)
    rates: dict[int, Rates] = {}
    for threads in sorted({1, most}):
        steps = {who: _steps_in(each, scale.round_s, threads) for who, each in everyone.items()}
        rates[threads] = {who: [] for who in everyone}
        for _ in range(scale.rounds):
            for who, each in everyone.items():
                seconds, _ = each.train(steps[who], threads)
                rates[threads][who].append(steps[who] * each.batch / seconds)
    return tabulated(rates, common.about, scale.device)


def _steps_in(contender: Ours, seconds: float, threads: int) -> int:
    """Number of steps that take about so long; warms up on the way."""
    of_one, _ = contender.train(1, threads)
    if of_one < seconds:
        count = max(1, min(10, round(seconds / of_one)))
        of_one = contender.train(count, threads)[0] / count
    return max(1, round(seconds / of_one))


def ratios(of: Sequence[float], to: Sequence[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the ratios within each round."""
    each = [a / b for a, b in zip(of, to, strict=True)]
    return statistics.median(each), min(each), max(each)


def tabulated(rates: dict[int, Rates], about: str, device: str = "cpu") -> Result:
    """Rates by the number of threads, of which the last one is compared."""
    most = max(rates)
    table = Table(
        f"Training on the {device.upper().replace('CUDA', 'GPU')}: images a second",
        ["who", f"images/s, {most} threads", "to the port", "range", "images/s, 1 thread",
         "to the port"],
        note="Whole training steps (both networks updated, batch and latents drawn, records kept), "
        f"on {about}. {len(rates[most][PORT])} rounds, everyone in turn in each; medians, and the median of "
        "each round's ratio with its range. Our presets compute in the hardware's best precision (bfloat16 "
        "where it has it); the port in float32, as it was written.",
    )  # fmt: skip
    for name, own in rates[most].items():
        middle, low, high = ratios(own, rates[most][PORT])
        table.add(
            name,
            f"{statistics.median(own):,.0f}",
            times(middle),
            f"{times(low)}–{times(high)}",
            f"{statistics.median(rates[1][name]):,.0f}",
            times(ratios(rates[1][name], rates[1][PORT])[0]),
        )
    if device == "cpu":
        middle, low, high = ratios(rates[most][FAST], rates[most][PORT])
        check = Check(
            "`fast` trains at least 8× the images/s of the demo's port",
            f"{times(middle)} (rounds: {times(low)}–{times(high)}) with {most} threads",
            middle >= 8,
        )
    else:
        small = [each for name, each in rates[1].items() if name.endswith("batch 64")]
        best = max(map(statistics.median, small))
        check = Check("100,000 images/s at batch 64 (H100)", f"{best:,.0f}", best >= 100_000)
    by_threads = {str(threads): each for threads, each in rates.items()}
    return Result([table], [check], {"images_per_s": by_threads})
