"""Who delivers a journal: a child process while a stage writes it, or `cgan track flush` later.

The stage holds a `Sender`, tells it folder and header, and ends it by closing its stdin. The process itself,
`python -m cgan.tracking.sender`, is told both on stdin and answers on stdout, in JSON lines: `run_id`
once the run exists in the store; at the end `delivered`, `rejected` and `error`. One process at a time
delivers a journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgan.errors import TrackingError
from cgan.project import PACKAGE_PARENT, project_root
from cgan.tracking.delivery import REJECTED, Delivery
from cgan.tracking.journal import (
    JOURNAL,
    RunHeader,
    count_waiting,
    delivered_run,
    is_finished,
    journals,
    remove_if_unused,
)
from cgan.tracking.store import (
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


class Sender:
    """The child process that delivers a journal, seen from its parent.

    It may be started before its journal is known: it imports MLflow meanwhile. One that is told no
    journal ends with its parent, and has done nothing.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_RUN}
        environment |= {STORE: uri, **client_settings()}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [PACKAGE_PARENT, os.environ.get("PYTHONPATH")])
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cgan.tracking.sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # until it knows its folder, which has a log
            bufsize=0,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the training
        )
        self._said = b""

    def deliver(self, folder: Path, header: RunHeader) -> None:
        """Tell it its journal. That it has died meanwhile is told by `finish`.

        The header too: by the time it has imported MLflow, the sender of a process that was killed may have
        delivered the journal, and removed it.
        """
        self.folder = folder
        assert self._process.stdin
        told = json.dumps({"folder": str(folder), "header": asdict(header)})
        with contextlib.suppress(OSError):
            self._process.stdin.write(told.encode() + b"\n")

    def require_connection(self, shown_uri: str) -> None:
        """Raises TrackingError unless the run exists in the store within CONNECT_S seconds."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], CONNECT_S)
        if ready:
            self._said = self._process.stdout.readline()
        heard = json.loads(self._said or b"{}")
        if not heard.get("run_id"):
            raise TrackingError(
                f"MLflow at {shown_uri} cannot be used: "
                f"{heard.get('error') or f'no answer within {CONNECT_S:g} s'}. Start it, set "
                "MLFLOW_TRACKING_URI to another, or set `tracking.on_unreachable: spool` to train "
                "now and deliver later."
            )

    def finish(self, patience_s: float) -> dict[str, str | None]:
        """Let it deliver what is left, for so long; tell what waits. Returns where the run is, as far as
        that is known: `run_id` and `experiment_id`."""
        try:
            output, _ = self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        answers: dict[str, Any] = {}
        for line in (self._said + output).splitlines():
            with contextlib.suppress(ValueError):
                answers |= json.loads(line)
        known = {**delivered_run(self.folder), **answers}
        if answers.get("rejected"):
            log.warning(
                "MLflow refused %d records for good; they are in %s/rejected.jsonl",
                answers["rejected"],
                self.folder,
            )
        if not answers.get("delivered"):
            waiting = count_waiting(self.folder)
            reason = answers.get("error") or f"not done after {patience_s:g} s"
            log.warning(
                "MLflow is away (%s): %d records wait in %s; `cgan track flush` delivers them.",
                reason,
                waiting,
                self.folder,
            )
        return {key: known.get(key) for key in ("run_id", "experiment_id")}


def send() -> None:
    """The process: deliver every few seconds, once more when stdin closes, then end."""
    os.nice(10)
    gc.disable()  # until it waits: collecting garbage is a tenth of the time of MLflow's import
    with contextlib.suppress(Exception):  # told when it delivers
        import mlflow.tracking

        if not is_server(os.environ[STORE]):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    line = sys.stdin.buffer.readline()
    if not line:
        return
    told = json.loads(line)
    folder, header = Path(told["folder"]), RunHeader(**told["header"])
    with contextlib.suppress(FileNotFoundError), (folder / "sender.log").open("ab") as log_file:
        os.dup2(log_file.fileno(), sys.stderr.fileno())
    closed = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=watch, daemon=True).start()
    while True:
        with _sole_sender(folder) as alone:
            if alone:
                _answer(**_deliver_until(folder, header, closed))
                return
        # The sender of a process that was killed, or `cgan track flush`, delivers it.
        closed.wait(0.5)
        time.sleep(0.2)


def _deliver_until(folder: Path, header: RunHeader, closed: threading.Event) -> dict[str, Any]:
    delivery = Delivery(folder, os.environ[STORE], project_root(), header)
    wait_s, told = POLL_S, False
    while True:
        last = closed.is_set()
        error = ""
        try:
            run_id = delivery.connect()
            if not told:
                _answer(run_id=run_id, experiment_id=delivery.experiment_id)
                told = True
            delivery.deliver()
            wait_s = POLL_S
        except Exception as caught:
            log.warning("not delivered: %s", caught)
            error = reason_of(caught)
            if not told:
                _answer(error=error)
            wait_s = min(2 * wait_s, MAX_BACKOFF_S)
            last |= closed.is_set()
        if last:
            break
        gc.enable()
        closed.wait(wait_s)
    delivered = not error
    if delivered:
        remove_if_finished(folder, delivery.offset)
    return {"delivered": delivered, "rejected": delivery.rejected, "error": error}


def _answer(**facts: Any) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def flush(root: Path) -> list[str]:
    """Deliver every journal that waits; a line for each. Raises TrackingError if one still waits."""
    lines, failures = [], []
    for folder in waiting_journals(root):
        try:
            lines.append(flush_one(root, folder))
        except TrackingError as error:
            failures.append(str(error))
    if failures:
        raise TrackingError("\n".join([*lines, *failures]))
    return lines


def waiting_journals(root: Path) -> list[Path]:
    """Folders of all journals, those that a running stage is writing included."""
    return sorted(path.parent for path in journals(root).glob(f"*/{JOURNAL}"))


def flush_one(root: Path, folder: Path) -> str:
    """Deliver one journal and say so. Raises TrackingError when it cannot be delivered now."""
    try:
        header = RunHeader.load(folder)
    except TrackingError:
        if (folder / JOURNAL).exists():
            raise
        return f"{folder.name}: delivered meanwhile by the training's own process"
    waiting = count_waiting(folder)
    # MLflow writes the address that it is told there, and the next journal may have another.
    told = {STORE: os.environ.get(STORE)}
    with (
        environment_set({**client_settings(), **dict.fromkeys(FOREIGN_RUN), **told}),
        _sole_sender(folder) as alone,
    ):
        if not alone:
            return f"{header.run_name}: a running stage delivers it"
        moved = is_absent(header.tracking_uri)  # the project, or its store
        uri = store_uri(root) if told[STORE] or moved else header.tracking_uri
        delivery = Delivery(folder, uri, root, header)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # no tracebacks: we give the reason
        try:
            delivery.deliver()
        except Exception as error:
            raise TrackingError(
                f"{header.run_name}: MLflow at {without_credentials(uri)} is away ({reason_of(error)}); "
                f"{waiting} records wait in {folder}. Start it and run `cgan track flush`. If it is gone "
                f"for good, {STORE}=… cgan track flush delivers them elsewhere, and rm -r '{folder}' "
                "drops them."
            ) from None
        remove_if_finished(folder, delivery.offset)
    line = f"{header.run_name}: {waiting} records delivered to {without_credentials(uri)}"
    if delivery.rejected:
        line += (
            f"; of these, {delivery.rejected} were refused for good: {folder / REJECTED} says why"
        )
    return line


def remove_if_finished(folder: Path, offset: int) -> None:
    """A delivered journal whose run has ended goes; one with refused records stays, to be looked at."""
    with contextlib.suppress(FileNotFoundError):  # somebody else did
        if not (folder / REJECTED).exists() and is_finished(folder):
            remove_if_unused(folder, offset)


@contextlib.contextmanager
def _sole_sender(folder: Path) -> Iterator[bool]:
    """Hold the journal's `sender.lock`, if nobody does. True also where the journal is gone."""
    while True:
        try:
            lock = (folder / "sender.lock").open("w", encoding="utf-8")
        except FileNotFoundError:
            yield True
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if os.fstat(lock.fileno()).st_nlink:  # else: removed, with its journal, in between
                yield True
                return


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    send()
