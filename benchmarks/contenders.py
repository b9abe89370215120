"""Who takes part: our presets, through our own training step."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from cgan.data.dataset import Dataset
from cgan.model.hardware import (
    choose_hardware,
    compute_deterministically,
    keep_freed_memory,
    parts_on_threads,
)
from cgan.model.sampling import draw
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.loop import record
from cgan.training.state import TrainState, estimate_batch_norm
from cgan.training.updates import train_step

from .machine import torch_threads


class Ours:
    """A preset: the step, feed and records of `cgan.training.loop.train`, without files and previews."""

    def __init__(self, name: str, data: Dataset, params: TrainParams) -> None:
        self.name, self.batch, self.params = name, params.batch_size, params
        hardware = choose_hardware(params.device, params.precision)
        self.state = TrainState(data, params, hardware)
        self.feed = Feed(data, params, hardware.device, params.log_every)
        keep_freed_memory()

    @property
    def step(self) -> int:
        return self.state.step

    def train(self, steps: int, threads: int) -> None:
        p, state = self.params, self.state
        with self._computing(threads):
            for _ in range(steps):
                train_step(state, self.feed)
                if state.step % p.log_every == 0:
                    record(state, 1.0, p.log_every)
            if state.hardware.device.type == "cuda":
                torch.cuda.synchronize()

    @contextlib.contextmanager
    def _computing(self, threads: int) -> Iterator[None]:
        state = self.state
        deterministic = torch.are_deterministic_algorithms_enabled()
        compute_deterministically()
        try:
            with (
                torch_threads(threads),
                parts_on_threads(state.parts if threads > 1 else 1) as state.map,
            ):
                yield
        finally:
            torch.use_deterministic_algorithms(deterministic)

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        network = copy.deepcopy(self.state.average)
        counts = self.feed.labels.cpu().bincount(minlength=network.architecture.classes)
        estimate_batch_norm(network, counts, self.params.seed)
        return draw(network, labels, seed, self.state.hardware.device)


PORT = "the demo's port (preset `demo`)"


def timed(contender: Ours, steps: int, threads: int) -> tuple[float, float]:
    """(seconds on the clock, CPU seconds of all threads) of so many steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    contender.train(steps, threads)
    return time.perf_counter() - wall, time.process_time() - cpu
