"""The service under load on loopback: latencies of drawing ten digits, and many connections at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from cgan.hosts import LOOPBACK, answers, site_of
from cgan.model.model_file import save_network
from cgan.project import PACKAGE_PARENT

from .evaluation_set import fresh_generator
from .scale import Scale
from .tables import Check, Result, Table

RATE = 50  # requests a second
P99_MS = 50.0
CONNECTIONS = 200
MEMORY_MB = 300  # that the service may grow by under all of this


@dataclass
class Load:
    """What came of requests: seconds of each, by when it was due; statuses or names of errors."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def ms(self, share: float) -> float:
        return float(np.quantile(self.seconds, share)) * 1000

    def figures(self) -> dict[str, Any]:
        ms = {f"p{100 * share:g}_ms": round(self.ms(share), 1) for share in (0.5, 0.9, 0.99, 1)}
        return {"requests": len(self.seconds), **ms, "statuses": dict(self.statuses)}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`cgan serve` in a process of its own: its address. Speed does not depend on weights: fresh ones."""
    torch.manual_seed(0)
    model = folder / "generator.safetensors"
    save_network(model, fresh_generator("default"), {})
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    command = ["-m", "cgan.cli", "serve", "--port", str(port), "--model", str(model)]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_PARENT}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *command], env=environment, **quiet) as process:
        try:
            while process.poll() is None and not answers(port):
                time.sleep(0.1)
            yield site_of(LOOPBACK, port), psutil.Process(process.pid)
        finally:
            process.terminate()


async def at_a_rate(address: str, rate: float, seconds: float) -> Load:
    """Ten digits `rate` times a second, whether or not those before are answered."""
    load, count = Load(), max(1, round(rate * seconds))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(_ask(client, load, number, due))
    return load


async def at_once(address: str, connections: int, rounds: int) -> Load:
    """As many connections, each of which asks again when it is answered."""
    load = Load()

    async def one(number: int) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            for turn in range(rounds):
                await _ask(client, load, number * rounds + turn, time.perf_counter())

    async with asyncio.TaskGroup() as tasks:
        for number in range(connections):
            tasks.create_task(one(number))
    return load


async def _ask(client: httpx.AsyncClient, load: Load, seed: int, due: float) -> None:
    question: dict[str, str | int] = {"text": "0123456789", "seed": seed}
    try:
        answer = await client.get("/draw", params=question)
        status = str(answer.status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    load.seconds.append(time.perf_counter() - due)
    load.statuses[status] += 1


def measure(scale: Scale) -> Result:
    seconds, rounds = scale.service_s, 5
    with (
        tempfile.TemporaryDirectory(prefix="cgan-") as folder,
        serving(Path(folder)) as (address, process),
    ):
        asyncio.run(at_a_rate(address, RATE, min(2.0, seconds)))
        before = process.memory_info().rss
        cpu, began = sum(process.cpu_times()[:2]), time.perf_counter()
        steady = asyncio.run(at_a_rate(address, RATE, seconds))
        cpu = (sum(process.cpu_times()[:2]) - cpu) / (time.perf_counter() - began)
        crowd = asyncio.run(at_once(address, CONNECTIONS, rounds))
        grown = (process.memory_info().rss - before) / 1e6
    table = Table(
        "The service: ten digits a request", ["load", "requests", "p50 ms", "p99 ms", "longest ms"]
    )
    for name, load in ((f"{RATE} a second, {seconds:g} s", steady),
                       (f"{CONNECTIONS} connections at once, {rounds} requests each", crowd)):  # fmt: skip
        table.add(name, f"{len(load.seconds):,}", *(f"{load.ms(q):.0f}" for q in (0.5, 0.99, 1)))
    table.note = (
        f"`GET /draw` → PNG, over loopback, from when a request was due; client and service share the "
        f"machine. The service took {cpu:.0%} of a core at {RATE} a second, and {grown:.0f} MB more than "
        f"before in all. Statuses: {dict(steady.statuses)}, {dict(crowd.statuses)}."
    )
    fine = {"200"}
    checks = [
        Check(
            f"ten digits at {RATE} requests a second: p99 under {P99_MS:.0f} ms, no error",
            f"{steady.ms(0.99):.0f} ms, {dict(steady.statuses)}",
            steady.ms(0.99) < P99_MS and set(steady.statuses) == fine,
        ),
        Check(
            f"{CONNECTIONS} connections at once: answered or told to wait, at most {MEMORY_MB} MB more",
            f"{dict(crowd.statuses)}, {grown:.0f} MB",
            set(crowd.statuses) <= fine | {"429"} and grown < MEMORY_MB,
        ),
    ]
    figures = {
        "steady": steady.figures(),
        "crowd": crowd.figures(),
        "cores": round(cpu, 2),
        "grown_mb": round(grown),
    }
    return Result([table], checks, figures)
