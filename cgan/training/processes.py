"""The parts of a batch in processes of their own, on CUDA with a device each (docs/adr/0025).

The process that somebody started leads: it alone probes, records, saves and is asked to stop. The others
follow: they compute their parts of each step. Each gets the gradients of all parts and adds them in the
same order, so all have the same weights, and they are those of parts on threads.

A follower that dies ends the training in words, and no follower outlives its leader.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from cgan.data.dataset import Dataset
from cgan.errors import TrainingError
from cgan.model import hardware as how
from cgan.model.model_file import load_tensors, save_tensors
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.cuda_graph import stepper
from cgan.training.state import ByPart, TrainState

NOTICED_S = 10.0  # in which the leader's main thread sees a death by itself
DIED_S = 2.0  # in which the lost connection and the death behind it are both seen


def prepared(
    data: Dataset, params: TrainParams, rank: int = 0
) -> tuple[TrainState, Callable[[int], None]]:
    """A training before its first step, and what runs a step, in the process of this number."""
    hardware = how.choose_hardware(params.device, params.precision, params.processes, rank)
    how.compute_deterministically()
    how.keep_freed_memory()
    state = TrainState(data, params, hardware, rank)
    return state, stepper(state, Feed(data, params, hardware.device, params.log_every))


@contextlib.contextmanager
def leading(state: TrainState, data: Dataset) -> Iterator[Callable[[ByPart], ByPart]]:
    """Start the followers where `state` is, and yield what exchanges gradients with them. Raises
    TrainingError when one of them dies."""
    if state.params.processes == 1:
        yield state.exchange
        return
    followers: list[BaseProcess] = []
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="cgan-") as name:
        folder = Path(name)
        tensors = {**state.tensors(), "images": data.images, "labels": data.labels}
        save_tensors(folder / "start", "checkpoint", tensors, {"step": state.step})
        try:
            _start(followers, folder, state.params, data.metadata)
            threading.Thread(target=_watch, args=(followers, folder, over), daemon=True).start()
            _join(folder, 0, state)
            yield exchange
        except RuntimeError:  # torch's, of a lost connection among others
            connection.wait([process.sentinel for process in followers], DIED_S)
            if dead := _deaths(followers, folder):
                raise TrainingError(dead) from None
            raise
        finally:
            over.set()
            for process in followers:
                process.kill()
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def exchange(by_part: ByPart) -> ByPart:
    """What this process computed for its parts → the same of all parts, in their order."""
    own = torch.stack([torch.cat([tensor.flatten() for tensor in part]) for part in by_part])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    sizes = [tensor.numel() for tensor in by_part[0]]
    pieces = [part.split(sizes) for part in torch.cat(every)]
    return [tuple(map(torch.Tensor.view_as, part, by_part[0])) for part in pieces]


def _join(folder: Path, rank: int, state: TrainState) -> None:
    """Meet the other processes. They wait for each other as long as it takes: deaths are seen otherwise."""
    cuda = state.hardware.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(state.hardware.device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", socket.if_indextoname(1))  # loopback
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=state.params.processes,
        timeout=timedelta(days=1),
    )


def _start(
    followers: list[BaseProcess], folder: Path, params: TrainParams, metadata: Mapping[str, Any]
) -> None:
    """They are deaf to Ctrl-C and SIGTERM from their first moment: what is blocked here stays blocked
    there."""
    resource_tracker.ensure_running()  # or its start lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        for rank in range(1, params.processes):
            name, task = (
                f"process {rank + 1} of {params.processes}",
                (rank, folder, params, metadata),
            )
            process = multiprocessing.get_context("spawn").Process(None, _follow, name, task)
            process.start()
            followers.append(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(rank: int, folder: Path, params: TrainParams, metadata: dict[str, Any]) -> None:
    """A follower's life: compute parts until the leader ends it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with its leader's death
    try:
        start, facts = load_tensors(folder / "start", "checkpoint")
        data = Dataset(start["images"], start["labels"], metadata)
        state, run_step = prepared(data, params, rank)
        state.restore(facts["step"], start)
        _join(folder, rank, state)
        state.exchange = exchange
        with how.parts_on_threads(state.parts, len(state.networks)) as state.map:
            for step in range(state.step, params.total_steps):
                run_step(step)
        threading.Event().wait()
    except Exception as error:
        (folder / str(rank)).write_text(f"{type(error).__name__}: {error}"[:500])
        os._exit(1)


def _watch(followers: list[BaseProcess], folder: Path, over: threading.Event) -> None:
    """End the leader when a follower has died and the main thread does not see it: it waits for the others
    to start, or for a device that waits for theirs."""
    connection.wait([process.sentinel for process in followers])
    if not over.wait(NOTICED_S):
        print(f"Error: {_deaths(followers, folder)}", file=sys.stderr, flush=True)
        os._exit(1)


def _deaths(followers: list[BaseProcess], folder: Path) -> str:
    """Which followers have ended, and why; empty if none has."""
    found = []
    for rank, process in enumerate(followers, 1):
        if (code := process.exitcode) is not None:
            told = folder / str(rank)
            why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            found.append(f"{process.name} ended: {told.read_text() if told.is_file() else why}")
    again = "Start the training again: it goes on from its last checkpoint."
    return f"{'; '.join(found)}. {again}" if found else ""
