"""One training a CUDA device: a slot that the process holds, and that is free when it ends, however it ends.

The slot is a file's lock (flock) in the machine's temporary folder, named after the device's own number, so
that trainings of other clones and users are seen too. Whoever finds no free device waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

LOOK_EVERY_S = 1.0
log = logging.getLogger(__name__)


@contextlib.contextmanager
def device_slot(device: torch.device, processes: int = 1) -> Iterator[None]:
    """Hold a free CUDA device, which becomes the current one; for another kind of device, nothing.

    A device with a number (`cuda:1`) is waited for; else the first that is free is taken. The first process
    of several holds the slots of the others, too.
    """
    if device.type != "cuda":
        yield
        return
    numbers = [device.index] if device.index is not None else range(torch.cuda.device_count())
    with contextlib.ExitStack() as slots:
        place = slots.enter_context(first_free([_name_of(number) for number in numbers]))
        for number in range(1, processes):
            slots.enter_context(first_free([_name_of(number)]))
        torch.cuda.set_device(numbers[place])
        yield


def _name_of(number: int) -> str:
    return str(getattr(torch.cuda.get_device_properties(number), "uuid", number))


@contextlib.contextmanager
def first_free(names: Sequence[str]) -> Iterator[int]:
    """Hold the first of these slots that is free, and say which; wait if none is."""
    files = [_open(Path(tempfile.gettempdir()) / f"cgan-device-{name}.lock") for name in names]
    try:
        told = False
        while (place := _try_each(files)) is None:
            if not told:
                log.info("Each CUDA device has a training (%d here): waiting for one.", len(names))
                told = True
            time.sleep(LOOK_EVERY_S)
        yield place
    finally:
        for file in files:
            os.close(file)


def _try_each(files: Sequence[int]) -> int | None:
    for place, file in enumerate(files):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return place
    return None


def _open(path: Path) -> int:
    """Another user's file is only read: in a shared folder the kernel refuses more."""
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
        os.fchmod(file, 0o644)  # whatever this user's umask: the next one reads it
        return file
    return os.open(path, os.O_RDONLY)
