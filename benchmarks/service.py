"""The service under load on loopback: how soon ten digits are drawn."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import numpy as np

from cgan.base.hosts import LOOPBACK, site_of
from cgan.base.report import Report, Table
from cgan.pipeline.project import PACKAGE_PARENT

from .common import Scale, report

RATE = 50  # requests a second
P99_MS = 50
WARM_UP_S = 2.0
Answer = tuple[float, str]  # milliseconds since it was due; a status, or the name of an error


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of `cgan serve`, in a process of its own, with the package's digits."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cgan.cli", "serve", "--port", str(port), "--model", "digits"]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_PARENT}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere) as process:
        try:
            while process.poll() is None:
                time.sleep(0.1)
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{site_of(LOOPBACK, port)}/healthz")
                    break
            yield site_of(LOOPBACK, port)
        finally:
            process.terminate()


async def at_a_rate(address: str, seconds: float) -> list[Answer]:
    """Ten digits RATE times a second, whether or not those before are answered."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        began = time.perf_counter()

        async def ask(number: int) -> Answer:
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                answer = await client.get("/draw", params={"text": "0123456789", "seed": number})
                status = str(answer.status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            return 1000 * (time.perf_counter() - due), status

        return await asyncio.gather(*map(ask, range(round(RATE * seconds))))


def measure(scale: Scale) -> Report:
    with serving() as address:
        asyncio.run(at_a_rate(address, min(WARM_UP_S, scale.service_s)))
        answers = asyncio.run(at_a_rate(address, scale.service_s))
    ms, statuses = zip(*answers, strict=True)
    found = {f"p{share}_ms": float(np.percentile(ms, share)) for share in (50, 99, 100)}
    counts = dict(Counter(statuses))
    promise = f"ten digits at {RATE} requests a second: p99 under {P99_MS} ms, no error"
    return report(
        Table(
            "The service",
            ("requests", "p50 ms", "p99 ms", "longest ms"),
            [(len(answers), *(f"{value:.0f}" for value in found.values()))],
        ),
        f"`GET /draw` → PNG of ten digits, {RATE} a second, over loopback, from when a request was due; "
        f"client and service share the machine. Statuses: {counts}.",
        {promise: found["p99_ms"] < P99_MS and counts.keys() == {"200"}},
        statuses=counts,
        **found,
    )
