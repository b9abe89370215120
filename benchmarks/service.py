"""The service under load on loopback: latencies of drawing ten digits, and many connections at once."""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from cgan.base.hosts import LOOPBACK, site_of
from cgan.models.model_file import save_generator
from cgan.pipeline.project import PACKAGE_PARENT

from .evaluation_set import fresh_generator
from .scale import Scale
from .tables import Check, Result, Table

RATE = 50  # requests a second
P99_MS = 50.0
CONNECTIONS = 200
MEMORY_MB = 300  # that the service may grow by under all of this
Answer = tuple[float, str]  # seconds since it was due; a status, or the name of an error


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`cgan serve` in a process of its own: its address. Speed does not depend on weights: fresh ones."""
    torch.manual_seed(0)
    model = folder / "generator.safetensors"
    save_generator(model, fresh_generator("default"), {})
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    command = ["-m", "cgan.cli", "serve", "--port", str(port), "--model", str(model)]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_PARENT}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=nowhere, stderr=nowhere
    ) as process:
        try:
            while process.poll() is None:
                time.sleep(0.1)
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{site_of(LOOPBACK, port)}/healthz")
                    break
            yield site_of(LOOPBACK, port), psutil.Process(process.pid)
        finally:
            process.terminate()


async def at_a_rate(address: str, rate: float, seconds: float) -> list[Answer]:
    """Ten digits `rate` times a second, whether or not those before are answered."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        began = time.perf_counter()

        async def one(number: int) -> Answer:
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            return await _ask(client, number, due)

        return await asyncio.gather(*map(one, range(max(1, round(rate * seconds)))))


async def at_once(address: str, connections: int, rounds: int) -> list[Answer]:
    """As many connections, each of which asks again when it is answered."""

    async def one(number: int) -> list[Answer]:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            seeds = range(number * rounds, (number + 1) * rounds)
            return [await _ask(client, seed, time.perf_counter()) for seed in seeds]

    each = await asyncio.gather(*map(one, range(connections)))
    return list(itertools.chain.from_iterable(each))


async def _ask(client: httpx.AsyncClient, seed: int, due: float) -> Answer:
    try:
        answer = await client.get("/draw", params={"text": "0123456789", "seed": str(seed)})
        status = str(answer.status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    return time.perf_counter() - due, status


def figures(answers: list[Answer]) -> dict[str, Any]:
    seconds, statuses = zip(*answers, strict=True)
    shares = (50, 90, 99, 100)
    ms = {f"p{share}_ms": round(np.percentile(seconds, share) * 1000, 1) for share in shares}
    return {"requests": len(answers), **ms, "statuses": dict(Counter(statuses))}


def measure(scale: Scale) -> Result:
    seconds, rounds = scale.service_s, 5
    with (
        tempfile.TemporaryDirectory(prefix="cgan-") as folder,
        serving(Path(folder)) as (address, process),
    ):
        asyncio.run(at_a_rate(address, RATE, min(2.0, seconds)))
        before = process.memory_info().rss
        cpu, began = sum(process.cpu_times()[:2]), time.perf_counter()
        steady = figures(asyncio.run(at_a_rate(address, RATE, seconds)))
        cpu = (sum(process.cpu_times()[:2]) - cpu) / (time.perf_counter() - began)
        crowd = figures(asyncio.run(at_once(address, CONNECTIONS, rounds)))
        grown = (process.memory_info().rss - before) / 1e6
    table = Table(
        "The service: ten digits a request",
        ["load", "requests", "p50 ms", "p99 ms", "longest ms"],
        note="`GET /draw` → PNG, over loopback, from when a request was due; client and service share the "
        f"machine. The service took {cpu:.0%} of a core at {RATE} a second, and {grown:.0f} MB more than "
        f"before in all. Statuses: {steady['statuses']}, {crowd['statuses']}.",
    )
    crowded = f"{CONNECTIONS} connections at once, {rounds} requests each"
    for name, load in {f"{RATE} a second, {seconds:g} s": steady, crowded: crowd}.items():
        times = (f"{load[key]:.0f}" for key in ("p50_ms", "p99_ms", "p100_ms"))
        table.add(name, f"{load['requests']:,}", *times)
    checks = [
        Check(
            f"ten digits at {RATE} requests a second: p99 under {P99_MS:.0f} ms, no error",
            f"{steady['p99_ms']:.0f} ms, {steady['statuses']}",
            steady["p99_ms"] < P99_MS and steady["statuses"].keys() == {"200"},
        ),
        Check(
            f"{CONNECTIONS} connections at once: answered or told to wait, at most {MEMORY_MB} MB more",
            f"{crowd['statuses']}, {grown:.0f} MB",
            crowd["statuses"].keys() <= {"200", "429"} and grown < MEMORY_MB,
        ),
    ]
    found = {"steady": steady, "crowd": crowd, "cores": round(cpu, 2), "grown_mb": round(grown)}
    return Result([table], checks, found)
