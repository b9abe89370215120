"""The follower: a process that sends a run's records to MLflow while a stage writes them, and `cgan track
flush`.

    python -m cgan.run.follower

is told on stdin which folder to follow, in a line of JSON, and that the stage has ended, by the end of the
file: also where the stage was killed. It runs at low priority, so a store that is dead, slow or hanging
delays nobody but the follower. What it leaves behind, `cursor.json`, says how far it came.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cgan.errors import CganError, TrackingError
from cgan.project import PACKAGE_PARENT, project_root
from cgan.run.delivery import Delivery
from cgan.run.records import LOCK, RunInfo, count_waiting, cursor, locked, waiting
from cgan.store.address import (
    FOREIGN_RUN,
    STORE,
    client_settings,
    environment_set,
    is_absent,
    is_server,
    reason_of,
    store_uri,
    without_credentials,
)

log = logging.getLogger(__name__)

POLL_S = 5.0  # each delivery costs the training a little of its second core
MAX_BACKOFF_S = 30.0
CONNECT_S = 30.0


class Follower:
    """The process, seen from the stage.

    It may be started before its folder is known: it imports MLflow while the stage imports torch. Each
    takes a core for more than a second, and the training needs both. Raises OSError on a full machine.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_RUN}
        path = filter(None, [PACKAGE_PARENT, os.environ.get("PYTHONPATH")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cgan.run.follower"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # until it knows its folder, which has a log
            env={
                **environment,
                STORE: uri,
                **client_settings(),
                "PYTHONPATH": os.pathsep.join(path),
            },
            start_new_session=True,  # Ctrl-C is for the training
        )

    def follow(self, folder: Path, *, system_metrics: bool = False) -> None:
        """Have it send what is written to `folder`. That it has died meanwhile is told by `finish`."""
        self.folder = folder
        assert self._process.stdin
        told = {"folder": str(folder), "system_metrics": system_metrics}
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()

    def require_connection(self) -> None:
        """Raises TrackingError unless the run exists in the store within CONNECT_S seconds."""
        deadline = time.monotonic() + CONNECT_S
        known: dict[str, Any] = {"error": f"no answer within {CONNECT_S:g} s"}
        while time.monotonic() < deadline and self._process.poll() is None:
            found = cursor(self.folder)
            if found.get("follower") == self._process.pid:  # else of a follower before it
                known = found
                break
            time.sleep(0.1)
        if known.get("error"):
            raise TrackingError(
                f"MLflow at {without_credentials(self.uri)} cannot be used: {known['error']}. Start it, set "
                "MLFLOW_TRACKING_URI to another, or set `tracking.on_unreachable: spool` to train "
                "now and deliver later."
            )

    def finish(self, patience_s: float) -> dict[str, str | None]:
        """Let it send what is left, for so long; tell what waits. Returns where the run is, as far as that is
        known: `run_id` and `experiment_id`."""
        try:
            self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        known = cursor(self.folder)
        if refused := known.get("refused"):
            log.warning("MLflow refuses %d records: %s/follower.log says why", refused, self.folder)
        if left := count_waiting(self.folder):
            log.warning(
                "MLflow is away (%s): %d records wait in %s; `cgan track flush` delivers them.",
                known.get("error") or f"not done after {patience_s:g} s",
                left,
                self.folder,
            )
        return {key: known.get(key) for key in ("run_id", "experiment_id")}


def start_follower() -> Follower | None:
    """The follower of a run that will be opened soon. None where the store is unusable by configuration or
    the machine is full, which whoever opens the run says."""
    try:
        return Follower(store_uri(project_root()))
    except (CganError, OSError):
        return None


def follow() -> None:
    """The process: send every few seconds, once more when stdin closes, then end."""
    os.nice(10)
    gc.disable()  # until it waits: collecting garbage is a tenth of the time of MLflow's import
    with contextlib.suppress(Exception):  # told when it sends
        import mlflow.tracking

        if not is_server(os.environ[STORE]):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    line = sys.stdin.buffer.readline()
    if not line:
        return
    told = json.loads(line)
    folder = Path(told["folder"])
    with (folder / "follower.log").open("ab") as log_file:
        os.dup2(log_file.fileno(), sys.stderr.fileno())
    closed = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=watch, daemon=True).start()
    with locked(folder / LOCK):
        _send_until(folder, closed, system_metrics=told["system_metrics"])


def _send_until(folder: Path, closed: threading.Event, *, system_metrics: bool) -> None:
    delivery = Delivery(folder, os.environ[STORE], project_root())
    load = None
    wait_s = POLL_S
    while True:
        last = closed.is_set()
        try:
            delivery.deliver()
            if system_metrics and not last:
                load = load or SystemLoad(delivery)
                load.send()
            wait_s = POLL_S
        except Exception as caught:
            log.warning("not delivered: %s", caught)
            with contextlib.suppress(OSError):
                delivery.save_cursor(error=reason_of(caught))
            wait_s = min(2 * wait_s, MAX_BACKOFF_S)
            last |= closed.is_set()
        if last:
            return
        gc.enable()
        closed.wait(wait_s)


class SystemLoad:
    """The machine's load as MLflow measures it, `system/…`: a value each time that records are sent."""

    def __init__(self, delivery: Delivery) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor: Any = SystemMetricsMonitor
        self._monitor = monitor(delivery.connect(), resume_logging=True, tracking_uri=delivery.uri)

    def send(self) -> None:
        self._monitor.collect_metrics()
        self._monitor.publish_metrics(self._monitor.aggregate_metrics())
        self._monitor.mlflow_logger.flush()


def flush(root: Path) -> list[str]:
    """Send the records of every run that wait; a line for each. Raises TrackingError if some still wait."""
    lines, failures = [], []
    for folder in waiting(root):
        try:
            lines.append(flush_one(root, folder))
        except TrackingError as error:
            failures.append(str(error))
    if failures:
        raise TrackingError("\n".join(lines + failures))
    return lines


def flush_one(root: Path, folder: Path) -> str:
    """Send the records of one run and say so. Raises TrackingError when that fails now."""
    info = RunInfo.load(folder)
    left = count_waiting(folder)
    given = os.environ.get(STORE)  # MLflow overwrites it, and the next run may have another address
    with (
        environment_set({**client_settings(), **dict.fromkeys(FOREIGN_RUN), STORE: given}),
        locked(folder / LOCK, wait=False) as alone,
    ):
        if not alone:
            return f"{info.run_name}: a running stage delivers it"
        moved = is_absent(info.tracking_uri)  # the project, or its store
        uri = store_uri(root) if given or moved else info.tracking_uri
        delivery = Delivery(folder, uri, root)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # no tracebacks: we give the reason
        try:
            delivery.deliver()
        except Exception as error:
            raise TrackingError(
                f"{info.run_name}: MLflow at {without_credentials(uri)} is away ({reason_of(error)}); "
                f"{left} records wait in {folder}. Start it and run `cgan track flush`. If it is gone "
                f"for good, {STORE}=… cgan track flush delivers them elsewhere, and rm -r '{folder}' "
                "drops them."
            ) from None
    line = f"{info.run_name}: {left} records delivered to {without_credentials(uri)}"
    return line + f"; of these, it refuses {delivery.refused}" * bool(delivery.refused)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    follow()
