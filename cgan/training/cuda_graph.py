"""Steps as the hardware runs them best: plainly, or as CUDA graphs, captured once and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from cgan.training.batches import Feed, penalised
from cgan.training.state import TrainState
from cgan.training.updates import train_step


def stepper(state: TrainState, feed: Feed) -> Callable[[int], None]:
    """→ a function that runs the step of a given number, counted from 0."""
    run: Callable[[bool], None] = functools.partial(train_step, state, feed)
    # Adadelta takes its rate as a Python number, which a graph would freeze.
    if state.hardware.device.type == "cuda" and state.params.optimizer == "adam":
        run = Graphs(run, state.hardware.device)

    def run_step(step: int) -> None:
        feed.seek(step)
        run(penalised(state.params, step))

    return run_step


class Graphs:
    """A step as a CUDA graph, one with R1 and one without: 200 kernels are launched at once.

    The first calls of each run plainly, on a side stream: they are steps like any other, and they do the
    set-up work that is not allowed during a capture. The next call captures the graph and replays it; so
    do all later ones.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[bool], None], device: torch.device) -> None:
        self.step, self.stream = step, torch.cuda.Stream(device)
        self.calls = {True: 0, False: 0}
        self.graphs: dict[bool, torch.cuda.CUDAGraph] = {}

    def __call__(self, penalise: bool) -> None:
        if penalise in self.graphs:
            self.graphs[penalise].replay()
            return
        if self.calls[penalise] < self.WARM_UP:
            self.calls[penalise] += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(penalise)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(penalise)  # recorded, not run
        self.graphs[penalise] = graph
        graph.replay()
