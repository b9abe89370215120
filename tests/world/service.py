"""A service to ask over HTTP, in this process on a thread."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import torch

from world.door import free_port, wait_until


@contextlib.contextmanager
def running(model: Any) -> Iterator[httpx.Client]:
    """A client of a real server on a free port. It serves this file, or what this provider finds."""
    import uvicorn

    from cgan.service.app import config_for
    from cgan.service.provider import GeneratorProvider

    provider = model if isinstance(model, GeneratorProvider) else GeneratorProvider(str(model))
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
