"""A training in MLflow while it goes on: sent by a thread of its own, which ends at the first failure."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.errors import Interrupted
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.run import Point, Run, TrainingRecord
from cgan.pipeline.tracking.tags import ENDED_BY_TAG
from cgan.project import SOURCE_FOLDER, project_root

BATCH_S = 1.0  # metrics of this time go in one call
LOADING_S = 60.0  # for MLflow's import, and for another process that makes the store
PATIENCE_S = 4.5  # for what is still to be sent at the end

log = logging.getLogger(__name__)


class LiveTracker:
    """A tracker of a training, which waits for MLflow at its end only, and then no longer than PATIENCE_S.
    `training` is `Run`'s."""

    def __init__(self, training: TrainingRecord) -> None:
        self.run_id: str | None = None  # once MLflow has given one
        self._training = training
        self._now_ms = int(training["began_ms"])
        self._metrics: SimpleQueue[tuple[dict[str, float], int, int]] = SimpleQueue()
        self._images: SimpleQueue[tuple[str, NDArray[np.uint8], int, int]] = SimpleQueue()
        self._uri, self._status, self._ended_by = store.store_uri(project_root()), "RUNNING", ""
        self._has_failed = False
        self._is_loaded, self._is_over = threading.Event(), threading.Event()
        store.set_environment()  # here: on a thread it would change the environment while torch reads it
        self._thread = threading.Thread(target=self._send, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no memory
            self._fail(error)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if not self._has_failed:
            self._metrics.put((dict(metrics), step, self._time_ms()))

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        if not self._has_failed:
            self._images.put((name, image.copy(), step, self._time_ms()))

    def _time_ms(self) -> int:
        """Now; where the clock is set back, it stands still until it has caught up."""
        self._now_ms = max(self._now_ms, time.time_ns() // 1_000_000)
        return self._now_ms

    def _send(self) -> None:
        """Run the thread, from the training's begin to its end."""
        try:
            client = store.open_store(self._uri)
            self._is_loaded.set()
            run = Run(client, self._training)
            client.update_run(run.run_id, status="RUNNING")
            run.log_inputs({})
            run.log_files(sorted(SOURCE_FOLDER.glob("*")), SOURCE_FOLDER.name)
            self.run_id = run.run_id
            while not self._is_over.wait(BATCH_S):
                self._empty_queues(run)
            self._empty_queues(run)
            if self._ended_by:
                client.set_tag(run.run_id, ENDED_BY_TAG, self._ended_by)
            client.set_terminated(run.run_id, self._status, self._time_ms())
        except Exception as error:  # of MLflow, of what it imports, of a machine that is full
            self._fail(error)

    def _empty_queues(self, run: Run) -> None:
        points = list[Point]()
        while not self._metrics.empty():
            metrics, step, time_ms = self._metrics.get()
            if any(key.startswith("probe/") for key in metrics):
                metrics |= machine_load()
            points += [(key, value, step, time_ms) for key, value in metrics.items()]
        run.log_metrics(points)
        while not self._images.empty():
            run.log_image(*self._images.get())

    def end(self, status: str, ended_by: str) -> None:
        self._status, self._ended_by = status, ended_by
        self._is_over.set()
        if self._has_failed:
            return
        if self._is_loaded.wait(LOADING_S):
            self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._fail(TimeoutError("no answer in time"))

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            words = "%s. The training goes on, and the stage record sends its run."
            log.warning(words, store.failure_in_words(self._uri, error))
        self._has_failed = True
        self._is_loaded.set()


def machine_load() -> dict[str, float]:
    """The machine's load since the last call, as MLflow's pages know it."""
    load: dict[str, float] = {}
    with contextlib.suppress(Exception):  # no GPU, or nothing that asks it
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        for kind in (CPUMonitor, GPUMonitor):
            monitor: Any = kind()  # untyped
            monitor.collect_metrics()
            load |= monitor.aggregate_metrics()
    return {f"system/{name}": value for name, value in load.items()}


@contextlib.contextmanager
def live_run(training: TrainingRecord) -> Iterator[LiveTracker]:
    """The run of a training, from its begin to its end."""
    live, status, ended_by = LiveTracker(training), "FINISHED", ""
    try:
        yield live
    except BaseException as error:
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        ended_by = f"{type(error).__name__}: {error}"[:1000]
        raise
    finally:
        live.end(status, ended_by)
