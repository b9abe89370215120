"""The follower: a process that sends a run's records to MLflow while a stage writes them, and `cgan track
flush`.

    python -m cgan.run.follower

is told on stdin which folder to follow, in a line of JSON, and that the stage has ended, by the end of the
file: also where the stage was killed. It runs at low priority, so a store that is dead, slow or hanging
delays nobody but the follower. What it leaves behind, `cursor.json`, says how far it came.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cgan.errors import CganError, TrackingError
from cgan.files import locked
from cgan.project import PACKAGE_PARENT, project_root
from cgan.run.delivery import Delivery
from cgan.run.records import LOCK, RECORDS, RunInfo, count_waiting, cursor, waiting
from cgan.store.address import (
    FOREIGN_RUN,
    SQLITE,
    STORE,
    client_settings,
    environment_set,
    is_server,
    reason_of,
    store_uri,
    without_credentials,
)

log = logging.getLogger(__name__)

POLL_S = 5.0  # each delivery costs the training a little of its second core
MAX_BACKOFF_S = 30.0


class Follower:
    """The process, seen from the stage.

    It may be started before its folder is known: it imports MLflow while the stage imports torch. Each
    takes a core for more than a second, and the training needs both. Raises OSError on a full machine.
    """

    def __init__(self, uri: str) -> None:
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
        """Have it send what is written to `folder`."""
        assert self._process.stdin
        told = {"folder": str(folder), "system_metrics": system_metrics}
        with contextlib.suppress(OSError):  # it has died; `finish` says what waits
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()

    def finish(self, folder: Path, patience_s: float) -> dict[str, str | None]:
        """Let it send what is left, for so long; say what waits. Returns where the run is, as far as that is
        known: `run_id` and `experiment_id`."""
        try:
            self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        known = cursor(folder)
        if refused := known.get("refused"):
            log.warning("MLflow refuses %d records: %s/follower.log says why", refused, folder)
        if left := count_waiting(folder):
            log.warning(
                "MLflow is away (%s): %d records wait in %s; `cgan track flush` delivers them.",
                known.get("error") or f"not done after {patience_s:g} s",
                left,
                folder,
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
    mlflow = "mlflow" if is_server(os.environ[STORE]) else "mlflow.store.tracking.sqlalchemy_store"
    with contextlib.suppress(Exception):  # the log says so when it sends
        importlib.import_module(mlflow)
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
    load: Any = None
    wait_s = POLL_S
    while True:
        last = closed.is_set()
        try:
            delivery.deliver()
            if system_metrics and not last:
                load = load or _system_load(delivery)
                load.collect_metrics()
                load.publish_metrics(load.aggregate_metrics())
                load.mlflow_logger.flush()
            wait_s = POLL_S
        except Exception as caught:
            log.warning("not delivered: %s", caught)
            with contextlib.suppress(OSError):
                delivery.save_cursor(reason_of(caught))
            wait_s = min(2 * wait_s, MAX_BACKOFF_S)
            last |= closed.is_set()
        if last:
            return
        closed.wait(wait_s)


def _system_load(delivery: Delivery) -> Any:
    """The machine's load as MLflow measures it, `system/…`."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor
    return monitor(delivery.run_id, resume_logging=True, tracking_uri=delivery.uri)


def store_of(info: RunInfo, root: Path) -> str:
    """The store of today's environment, else the server of then, else the project's file."""
    if os.environ.get(STORE) or info.tracking_uri.startswith(SQLITE):
        return store_uri(root)
    return info.tracking_uri


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
        uri = store_of(info, root)
        delivery = Delivery(folder, uri, root)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # no tracebacks: we give the reason
        try:
            delivery.deliver()
        except Exception as error:
            with contextlib.suppress(OSError):
                delivery.save_cursor(reason_of(error))
            raise TrackingError(
                f"{info.run_name}: MLflow at {without_credentials(uri)} is away ({reason_of(error)}); "
                f"{left} records wait in {folder}. Start it and run `cgan track flush`. If it is gone "
                f"for good, {STORE}=… cgan track flush delivers them elsewhere, and "
                f"rm '{folder / RECORDS}' drops them."
            ) from None
    line = f"{info.run_name}: {left} records delivered to {without_credentials(uri)}"
    return line + f"; of these, it refuses {delivery.refused}" * bool(delivery.refused)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    follow()
