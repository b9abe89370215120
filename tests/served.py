"""A service to ask over HTTP: in this process on a thread, or as the command `cgan serve`."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import torch
import uvicorn
from conftest import ROOT, answers, free_port, wait_until
from synthetic import a_model as a_model

from cgan.service.app import config_for
from cgan.service.provider import GeneratorProvider

eventually = wait_until


def detail(answer: httpx.Response) -> str:
    """An error has one field, a text; it is safe in a browser."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    ((key, words),) = answer.json().items()
    assert key == "detail" and "Traceback" not in words and len(words) < 900
    return str(words)


@contextlib.contextmanager
def running(provider: GeneratorProvider) -> Iterator[httpx.Client]:
    """A client of a real server on a free port of this process."""
    port = free_port()
    server = uvicorn.Server(config_for(provider, "127.0.0.1", port))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        torch.set_num_threads(threads)
        assert not thread.is_alive()


@contextlib.contextmanager
def command(
    *arguments: str, folder: Path, files: int = 1024, most: int = 1024
) -> Iterator[tuple[subprocess.Popen[str], Path, httpx.Client]]:
    """`cgan serve …` in a process of its own, with the file that has its log. It may have so many files open,
    and raise that to `most`."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {most})); "
    code, log = f"{limit}from cgan.cli import main; main()", folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", str(free_port()), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdout
        try:
            address, _, _ = process.stdout.readline().partition(" ")
            assert address, log.read_text()
            with httpx.Client(base_url=address, timeout=60) as client:
                wait_until(lambda: answers(f"{address}/healthz"))
                yield process, log, client
        finally:
            process.kill()
