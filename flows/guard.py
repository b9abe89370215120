"""Run a command, and end its whole process group when whoever started us is gone.

    python guard.py PARENT_PID GRACE_S COMMAND…

A flow that dies by SIGKILL can end nothing: its training would go on alone, next to the one that the
next run starts. This process is the leader of the group, and looks once a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> int:
    parent, grace_s, *command = sys.argv[1:]
    child = subprocess.Popen(command)
    # SIGTERM goes to the whole group: the command ends by it, we then say how.
    signal.signal(signal.SIGTERM, lambda *_: None)

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.killpg(0, signal.SIGTERM)
        deadline = time.monotonic() + float(grace_s)  # the training saves a checkpoint
        while time.monotonic() < deadline and _others():
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = child.wait()
    if os.getppid() != int(parent):
        watcher.join()
    return code if code >= 0 else 128 - code


def _others() -> bool:
    """Is anybody left in our group?"""
    import psutil  # not before: every stage waits for our start

    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            mine = os.getpgid(process.pid) == os.getpgrp() and process.pid != os.getpid()
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
