"""A training in MLflow while it goes on: its metrics, sent by a thread that ends at the first failure.

MLflow's own asynchronous logging drops a batch that fails, and says so in a log alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from queue import SimpleQueue

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
    """Sends the metrics of a training. It waits for MLflow at its end only, and no longer than PATIENCE_S.

    Pictures come from the stage record, with all that did not arrive. `training` is `Run`'s.
    """

    def __init__(self, training: TrainingRecord) -> None:
        self.run_id: str | None = None  # once MLflow has given one
        self._training, self._points = training, SimpleQueue[Point]()
        self._uri, self._status, self._ended_by = store.store_uri(project_root()), "RUNNING", ""
        self._has_failed = False
        self._is_loaded, self._is_over = threading.Event(), threading.Event()
        store.set_environment()  # here: on a thread it would change the environment while torch reads it
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if not self._has_failed:
            for key, value in metrics.items():
                self._points.put((key, value, step, time.time_ns() // 1_000_000))

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
                run.log_metrics(self._waiting())
            run.log_metrics(self._waiting())
            if self._ended_by:
                client.set_tag(run.run_id, ENDED_BY_TAG, self._ended_by)
            client.set_terminated(run.run_id, self._status)
        except Exception as error:  # of MLflow, of what it imports, of a machine that is full
            self._fail(error)

    def _waiting(self) -> list[Point]:
        points = list[Point]()
        while not self._points.empty():
            points.append(self._points.get())
        return points

    def end(self, status: str, ended_by: str) -> None:
        self._status, self._ended_by = status, ended_by
        self._is_over.set()
        if not self._has_failed and self._is_loaded.wait(LOADING_S):
            self._thread.join(PATIENCE_S)
        if not self._has_failed and self._thread.is_alive():
            self._fail(TimeoutError("no answer in time"))

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            words = "%s. The training goes on, and the stage record sends its run."
            log.warning(words, store.failure_in_words(self._uri, error))
        self._has_failed = True
        self._is_loaded.set()


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
