"""A service to ask over HTTP: in this process on a thread, or as the command `cgan serve`."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from conftest import ROOT

from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.service.served import Keeper
from cgan.service.server import THIS_MACHINE, config_for, drawing_threads, listen

SECURE = (
    "x-content-type-options",
    "referrer-policy",
    "x-frame-options",
    "cross-origin-resource-policy",
)


def detail(answer: httpx.Response) -> str:
    """An error has one field; it is a text, in the project's style, and safe in a browser."""
    assert answer.headers["content-type"] == "application/json"
    assert all(name in answer.headers for name in SECURE)
    document = answer.json()
    assert list(document) == ["detail"]
    words = document["detail"]
    assert "Traceback" not in words
    assert len(words) < 900
    return str(words)


def eventually(holds: Callable[[], Any], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def a_model(
    path: Path, *, channels: int = 1, side: int = 28, seed: int = 0, names: Any = None
) -> Path:
    """A generator of random weights: what it draws has all kinds of pixels."""
    torch.manual_seed(seed)
    network = build_generator(Architecture("deconv", 10, channels, side, side, 8, 8))
    facts = {"class_names": names} if names else {}
    save_network(path, network, {"seed": seed, **facts})
    return path


@contextlib.contextmanager
def running(keeper: Keeper, hosts: tuple[str, ...] | None = THIS_MACHINE) -> Iterator[httpx.Client]:
    """A client of a real server on a free port of this process."""
    listening = listen("127.0.0.1", 0, allow_remote=False)
    with drawing_threads() as pool:
        server = uvicorn.Server(config_for(keeper, pool, hosts))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=address, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextlib.contextmanager
def running_file(path: Path) -> Iterator[httpx.Client]:
    with running(Keeper(str(path))) as client:
        yield client


class Command:
    """`cgan serve …` in a process of its own. `said` grows: its stderr, line by line."""

    def __init__(self, *arguments: str, folder: Path, env: dict[str, str] | None = None) -> None:
        code = "from cgan.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            self.said.append(line)
            self._lines.put(line)

    def address(self) -> str:
        """When it listens."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.2)
                if line.startswith("http://"):
                    return line.split()[0]
            assert self.process.poll() is None, "".join(self.said)
        raise AssertionError("".join(self.said))


@contextlib.contextmanager
def command(
    *arguments: str, folder: Path, env: dict[str, str] | None = None
) -> Iterator[tuple[Command, httpx.Client]]:
    started = Command(*arguments, folder=folder, env=env)
    try:
        with httpx.Client(base_url=started.address(), timeout=60) as client:
            yield started, client
    finally:
        started.process.kill()
        started.process.wait()
        for stream in (started.process.stdout, started.process.stderr):
            assert stream
            stream.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    with running_file(model) as found:
        yield found
