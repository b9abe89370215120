"""A training in MLflow while it goes on: its metrics, sent by a thread; after the first failure, no more.

MLflow's own asynchronous logging waits at the end for all that is queued, even if no server answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from cgan.pipeline.project import SOURCE_FOLDER, project_root
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.run import TrackedRun, TrainingRecord

PATIENCE_S = 15.0  # for what is still to be sent at the end

log = logging.getLogger(__name__)


class LiveTracker:
    """Sends the metrics of a training, and waits for MLflow at its end only; the stage record sends the rest.
    `training` is `TrackedRun`'s."""

    def __init__(self, training: TrainingRecord) -> None:
        self._uri = store.store_uri(project_root())
        store.set_environment()  # here: on a thread it would change the environment while torch reads it
        self._thread = ThreadPoolExecutor(1)
        self._sent = self._thread.submit(self._begin, training)

    def _begin(self, training: TrainingRecord) -> TrackedRun:
        run = TrackedRun(store.open_store(self._uri), training)
        run.client.update_run(run.run_id, status="RUNNING")
        run.log_inputs({})
        run.log_files(sorted(SOURCE_FOLDER.glob("*")), SOURCE_FOLDER.name)
        return run

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        points = [(key, value, step, now_ms) for key, value in metrics.items()]
        self._send(lambda run: run.log_metrics(points))

    def end(self, status: str) -> None:
        self._send(lambda run: run.client.set_terminated(run.run_id, status))
        try:
            self._sent.result(PATIENCE_S)
        except Exception as error:  # of MLflow, of what it imports, of a machine that is full
            failure = store.failure_in_words(self._uri, error)
            log.warning(f"{failure}. The training's run is sent by the stage record.")
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, call: Callable[[TrackedRun], None]) -> None:
        """After a call that failed, all that come fail as it did."""

        def on_the_thread(before: Future[TrackedRun]) -> TrackedRun:
            call(run := before.result())
            return run

        self._sent = self._thread.submit(on_the_thread, self._sent)
