"""Drawing for many at once: requests that wait are drawn together, each as if it were alone.

`cgan.model.sampling.draw` runs the network on chunks of CHUNK rows, because float arithmetic may depend on
the number of rows, and on where in them an image stands. Most builds of torch depend on neither: `Passes`
tries that out with the network itself. Where it holds, rows of several requests share a pass, and few rows
take a small one. Where not, each chunk is a pass of its own, as in `draw`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cgan.model.networks import Generator
from cgan.model.sampling import CHUNK, draw_latents, latent_chunks, render_chunk

WAIT_S = 0.002  # for others who are about to ask
SIZES = (16, 32)  # rows of a pass that are tried beside CHUNK


@dataclass(frozen=True)
class Passes:
    """How a network may be run so that each image has the bits that `draw` gives it."""

    sizes: tuple[int, ...] = (CHUNK,)
    shared: bool = False

    @classmethod
    @torch.inference_mode()
    def measured_on(cls, network: Generator) -> Passes:
        """Compare floats, before they are rounded to pixels. Takes some ten passes.

        torch has to use one thread, here as in the passes of `draw`: bits may depend on that too.
        """
        latents = draw_latents(0, CHUNK, network.architecture.latent_dim)
        condition = network.condition(torch.arange(CHUNK) % network.architecture.classes)
        images = network.from_condition(latents, condition)

        def holds(rows: int, shift: int) -> bool:
            """Do the first `rows` images come out the same in a pass of their own, moved by `shift`?"""
            order = torch.arange(rows).roll(shift)
            own = network.from_condition(latents[order], condition[order])
            return torch.equal(own, images[order])

        shared = all(holds(CHUNK, shift) for shift in (1, 7, 32))
        sizes = [size for size in SIZES if holds(size, 0) and (not shared or holds(size, 5))]
        return cls((*sizes, CHUNK), shared)

    def rows_for(self, count: int) -> int:
        return next(size for size in self.sizes if size >= count)


@dataclass(eq=False)
class _Job:
    """A request. `begun` rows have been handed out to passes, `done` are drawn."""

    network: Generator
    passes: Passes
    labels: Tensor
    latents: Iterator[Tensor]
    future: Future[Tensor] = field(default_factory=Future)
    images: list[Tensor] = field(default_factory=list)
    begun: int = 0

    @property
    def next_rows(self) -> int:
        return min(CHUNK, len(self.labels) - self.begun)

    def take(self) -> tuple[Tensor, Tensor]:
        labels = self.labels[self.begun : self.begun + CHUNK]
        self.begun += len(labels)
        return next(self.latents)[: len(labels)], labels


class Batcher:
    """One thread that draws. Each pass takes a chunk of each who waits, in turn, so that a request of
    thousands does not hold up one of ten.

    `expected()` is how many requests are on their way to `submit`, those that wait in it included: while
    there are more than wait, a pass is put off for WAIT_S. `drawn(rows, requests)` is told of each pass. On
    each of `threads` a chunk is drawn at a time.
    """

    def __init__(
        self,
        expected: Callable[[], int] = lambda: 0,
        drawn: Callable[[int, int], None] = lambda rows, requests: None,
        threads: int = 1,
    ) -> None:
        self._expected, self._drawn, self._threads = expected, drawn, threads
        self._waiting: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(self._threads, "pass", torch.set_num_threads, (1,))
        self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._thread.start()

    def submit(
        self, network: Generator, passes: Passes, labels: list[int], seed: int
    ) -> Future[Tensor]:
        """The images that `draw(network, labels, seed)` gives, as a future: uint8 [N, C, H, W].

        Raises RuntimeError where nothing is drawn any more."""
        latents = latent_chunks(seed, network.architecture.latent_dim)
        job = _Job(network, passes, torch.tensor(labels), latents)
        with self._wake:
            if self._closed:
                raise RuntimeError("the thread that draws has ended")
            self._waiting.append(job)
            self._wake.notify()
        return job.future

    @property
    def alive(self) -> bool:
        """Does it draw? Not after `close`, nor after an error that ended its thread."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Draw what waits, then end."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._pool.shutdown()

    def _work(self) -> None:
        try:
            while jobs := self._next():
                try:
                    self._draw(jobs)
                except Exception as error:  # such as no memory. The thread lives on
                    for job in jobs:
                        self._end(job, error)
        finally:  # nobody waits for a thread that has gone
            with self._wake:
                self._closed, left = True, list(self._waiting)
            for job in left:
                self._end(job, RuntimeError("the thread that draws has ended"))

    def _draw(self, jobs: list[_Job]) -> None:
        """A pass."""
        pieces = [job.take() for job in jobs]
        for job, images in zip(jobs, self._render(jobs[0], pieces), strict=True):
            job.images.append(images)
        self._drawn(sum(len(labels) for _, labels in pieces), len(jobs))
        for job in jobs:
            if job.begun == len(job.labels):
                try:
                    whole = torch.cat(job.images)
                except Exception as error:  # of this one alone
                    self._end(job, error)
                else:
                    self._end(job, whole)

    def _next(self) -> list[_Job]:
        """Who has a chunk in the next pass: jobs of one network. Empty when all is done and closed."""
        with self._wake:
            while True:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                until = time.monotonic() + WAIT_S
                while not self._closed and len(self._waiting) < self._expected():
                    if not self._wake.wait(until - time.monotonic()):
                        break
                self._drop_cancelled()
                if self._waiting:
                    break
                if self._closed:
                    return []
            room, chosen = CHUNK * self._threads, []
            for job in list(self._waiting):
                if job.network is self._waiting[0].network and job.next_rows <= room:
                    room -= job.next_rows
                    chosen.append(job)
            for job in chosen:  # to the end of the queue, where it stays until it is done
                self._waiting.remove(job)
                self._waiting.append(job)
            return chosen

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._waiting if job.future.cancelled()]:
            self._waiting.remove(job)
            job.future.set_running_or_notify_cancel()

    def _end(self, job: _Job, outcome: Tensor | Exception) -> None:
        with self._wake:
            if job not in self._waiting:  # has ended already
                return
            self._waiting.remove(job)
        if not job.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    def _render(self, first: _Job, pieces: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        counts = [len(labels) for _, labels in pieces]
        if first.passes.shared and len(pieces) > 1:
            latents, labels = (torch.cat(parts) for parts in zip(*pieces, strict=True))
            pieces = list(zip(latents.split(CHUNK), labels.split(CHUNK), strict=True))
        parts = self._pool.map(lambda piece: self._run(first, *piece), pieces)
        return list(torch.cat(list(parts)).split(counts))

    @staticmethod
    def _run(job: _Job, latents: Tensor, labels: Tensor) -> Tensor:
        return render_chunk(job.network, latents, labels, job.passes.rows_for(len(labels)))
