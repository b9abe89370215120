"""Run a command in this process's group, and end the group when told to, or when our parent is gone.

    python guard.py PARENT_PID GRACE_S SPARED COMMAND…

A flow that dies by SIGKILL cannot end its children: its training would go on, beside the one that the next
run starts. This process is the leader of the group. SIGTERM tells it to end the group; five times a second
it looks whether its parent is still there.

The command's output passes through this process, and is dropped when nobody reads it any more: otherwise a
broken pipe could end DVC or a stage at any moment. SPARED is 1 for DVC, which gets no SIGTERM: it could
die between truncating dvc.lock and writing it, just when its stage has ended. It ends by itself when its
stage does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

LOOK_S = 0.2


def main() -> int:
    parent, grace_s, spared, *command = sys.argv[1:]
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout
    relay = threading.Thread(target=_relay, args=[child.stdout.fileno()], daemon=True)
    relay.start()
    while relay.is_alive() and not signals and os.getppid() == int(parent):
        relay.join(LOOK_S)
    if relay.is_alive():
        _end_group(float(grace_s), {child.pid} if spared == "1" else set())
    code = child.wait()
    relay.join()
    return code if code >= 0 else 128 - code


def _relay(source: int) -> None:
    """Pass on what comes, as it comes, until the last process of the group has closed its end."""
    heard = True
    while words := os.read(source, 65536):
        while heard and words:
            try:
                words = words[os.write(1, words) :]
            except OSError:
                heard = False


def _end_group(grace_s: float, spared: set[int]) -> None:
    """SIGTERM once to each process that is not spared, also to those that come later; SIGKILL to all that
    are left after the grace, in which a training saves a checkpoint."""
    deadline = time.monotonic() + grace_s
    told = set(spared)
    while others := _others():
        if time.monotonic() > deadline:
            os.killpg(0, signal.SIGKILL)
        for pid in others - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told |= others
        time.sleep(LOOK_S)


def _others() -> set[int]:
    """Who is alive in our group besides us."""
    import psutil  # not before: every stage waits for our start

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            mine = os.getpgid(process.pid) == os.getpgrp() and process.pid != os.getpid()
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


if __name__ == "__main__":
    sys.exit(main())
