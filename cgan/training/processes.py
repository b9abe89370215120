"""The parts of a batch in processes of their own, on CUDA with a device each (docs/adr/0025).

The process that somebody started leads: it alone probes, records, saves and is asked to stop. The others
follow: they compute their parts of each step. Each gets the gradients of all parts and adds them in the
same order, so all have the same weights, and they are those of parts on threads.

A follower that dies ends the training in words, and no follower outlives its leader.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

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
Prepared = tuple[TrainState, Callable[[int], None]]


def prepared(data: Dataset, params: TrainParams, rank: int = 0) -> Prepared:
    """A training before its first step, and what runs a step, in the process of this number."""
    hardware = how.choose_hardware(params.device, params.precision, params.processes, rank)
    how.compute_deterministically()
    how.keep_freed_memory()
    state = TrainState(data, params, hardware)
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
        facts = {"step": state.step, "metadata": data.metadata}
        save_tensors(folder / "start", "checkpoint", tensors, facts)
        try:
            _start(followers, folder, state.params)
            threading.Thread(target=_watch, args=(followers, folder, over), daemon=True).start()
            _join(folder, state)
            yield exchange
        except RuntimeError:  # torch's, of a lost connection among others
            if dead := _death(followers, folder):
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
    pieces = [part.split([tensor.numel() for tensor in by_part[0]]) for part in torch.cat(every)]
    return [tuple(map(torch.Tensor.view_as, part, by_part[0])) for part in pieces]


def _join(folder: Path, state: TrainState) -> None:
    """Meet the other processes. They wait for each other as long as it takes: deaths are seen otherwise."""
    device = state.hardware.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=state.hardware.rank,
        world_size=state.params.processes,
        timeout=timedelta(days=1),
    )


def _start(followers: list[BaseProcess], folder: Path, params: TrainParams) -> None:
    """Start them and wait until they are ready. They are deaf to Ctrl-C and SIGTERM from their first
    moment: what is blocked here stays blocked there."""
    resource_tracker.ensure_running()  # or its start lifts the block
    spawn, count = multiprocessing.get_context("spawn"), params.processes
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        for rank in range(1, count):
            name = f"process {rank + 1} of {count}"
            process = spawn.Process(None, _follow, name, (rank, folder, params))
            process.start()
            followers.append(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while len(list(folder.glob("ready-*"))) < len(followers):
        if connection.wait([process.sentinel for process in followers], 0.05):
            raise RuntimeError("one has died")


def _follow(rank: int, folder: Path, params: TrainParams) -> None:
    """A follower's life: compute parts until the leader ends it."""
    threading.Thread(target=_end_with_leader, daemon=True).start()
    try:
        start, facts = load_tensors(folder / "start", "checkpoint")
        data = Dataset(start["images"], start["labels"], facts["metadata"])
        state, run_step = prepared(data, params, rank)
        state.restore(facts["step"], start)
        (folder / f"ready-{rank}").touch()
        _join(folder, state)
        state.exchange = exchange
        with how.parts_on_threads(state.parts, len(state.networks)) as state.map:
            for step in range(state.step, params.total_steps):
                run_step(step)
        threading.Event().wait()
    except Exception as error:
        with (
            contextlib.suppress(FileExistsError),
            (folder / "told").open("x", encoding="utf-8") as first,
        ):
            first.write(f"process {rank + 1} of {params.processes} ended: {error!r}"[:500])
        os._exit(1)


def _end_with_leader() -> None:
    if leader := multiprocessing.parent_process():
        leader.join()
    os._exit(1)


def _watch(followers: list[BaseProcess], folder: Path, over: threading.Event) -> None:
    """End the leader when a follower has died and the main thread does not see it, for it waits for a
    device, which waits for the dead one's."""
    connection.wait([process.sentinel for process in followers])
    if not over.wait(NOTICED_S):
        sys.stderr.write(f"Error: {_death(followers, folder)}\n")
        os._exit(1)


def _death(followers: list[BaseProcess], folder: Path) -> str:
    """Which follower died first, and of what; empty if none has. The others die of the lost connection."""
    gone = connection.wait([process.sentinel for process in followers], DIED_S)
    dead = [process for process in followers if process.sentinel in gone]
    for process in dead:
        process.join()
    killed = [(process.name, -code) for process in dead if (code := process.exitcode or 0) < 0]
    words = [f"{name} was killed by {signal.Signals(number).name}" for name, number in killed]
    words += [told.read_text(encoding="utf-8")] if (told := folder / "told").is_file() else []
    words += [f"{process.name} ended with exit code {process.exitcode}" for process in dead]
    return f"{words[0]}. Start the training again: it goes on from its checkpoint." if dead else ""
