"""Run a command in this process's group, and end the group when our stdin ends.

    python process_guard.py GRACE_S COMMAND…

A flow that dies by SIGKILL cannot end its children: its training would go on, beside the one that the next
run starts. But the pipe to our stdin then ends, whoever held it. What comes through it is the command's.

The command's output passes through here, and is dropped when nobody reads it any more: otherwise a broken
pipe could end DVC or a stage at any moment.
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
    grace_s, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: None)  # it is for the others in the group
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert child.stdin and child.stdout
    ends = (child.stdin.fileno(), int(grace_s))
    threading.Thread(target=_end_with_stdin, args=ends, daemon=True).start()
    heard = True
    while words := os.read(
        child.stdout.fileno(), 65536
    ):  # until the group's last process has closed it
        while heard and words:
            try:
                words = words[os.write(1, words) :]
            except OSError:
                heard = False
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_with_stdin(command: int, grace_s: int) -> None:
    """SIGTERM to the group, and after the grace, in which a training saves a checkpoint, SIGKILL.

    SIGTERM goes out each second, for DVC may start a stage after the first. When the last process of the
    group has ended, this one ends, too, and waits no longer.
    """
    with contextlib.suppress(BrokenPipeError):
        while words := os.read(0, 65536):
            os.write(command, words)
    os.close(command)
    for _ in range(grace_s):
        os.killpg(0, signal.SIGTERM)
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
