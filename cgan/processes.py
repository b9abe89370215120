"""Processes that an earlier command started and wrote down: a number, and when it began."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def started_at(process: psutil.Process) -> float:
    """When it began, in seconds since the machine's start: when the clock is set, that stays the same.

    Where there is no /proc, in seconds since 1970, which the kernel keeps then."""
    try:
        words = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return process.create_time()
    return int(words.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def find_process(pid: int, started: float) -> psutil.Process | None:
    """The process that was written down, if it is still alive: a later one may have got its number."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid)
        # An older version wrote down the time since 1970.
        times = (started_at(found), found.create_time())
        if found.status() != psutil.STATUS_ZOMBIE and any(abs(t - started) < 0.01 for t in times):
            return found
    return None
