"""`cgan serve`: the socket, the server around the application, and its end."""

from __future__ import annotations

import errno
import ipaddress
import logging
import signal
import socket
import sys

import torch
import uvicorn

from cgan.errors import CganError
from cgan.model.hardware import threads_at_hand
from cgan.service.app import Service, make_app
from cgan.service.guard import App
from cgan.service.served import Keeper

log = logging.getLogger("cgan.service")

KEEP_ALIVE_S = 5
MAX_HEAD = 2**15  # bytes of a request's head
DRAIN_S = 30  # for answers that are on their way when the service is to end
MAX_CONNECTIONS = 1000


def serve(model: str | None, host: str, port: int, allow_remote: bool) -> None:
    """Until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    _log_to_stderr()
    listening = listen(host, port, allow_remote)
    threads = threads_at_hand()
    torch.set_num_threads(1)  # of an operator: chunks are drawn side by side, as in `cgan draw`
    keeper = Keeper(model)
    service = Service(keeper, threads)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    what = keeper.current.named if keeper.current else f"nothing yet: {keeper.problem}"
    server = uvicorn.Server(config_for(make_app(service, None if allow_remote else [host])))
    keeper.follow()
    # uvicorn sets its own handlers, and raises the signal again for these when all is answered: exit code 0.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, server.handle_exit)
    sys.stdout.write(f"{url} serves {what} (Ctrl-C ends it)\n")  # who connects now waits a moment
    sys.stdout.flush()
    try:
        server.run([listening])
    finally:
        keeper.stop()
        service.close()


def config_for(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        h11_max_incomplete_event_size=MAX_HEAD,
    )


def listen(host: str, port: int, allow_remote: bool) -> socket.socket:
    """A socket that is bound, not yet listening. Raises CganError in words."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CganError(
            f"--host {host[:100]}: no address of this machine ({error}). Give one, such as 127.0.0.1."
        ) from None
    family, kind, protocol, _, address = found[0]
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        if not allow_remote:
            raise CganError(
                f"--host {host}: others than this machine could reach it, and the service asks nobody for a "
                "password. Add --allow-remote if that is meant; docs/security.md says what it means."
            )
        log.warning(
            "WARNING: bound to %s: whoever reaches this machine can have it draw. There is no password and "
            "no TLS; put a proxy in front for that.",
            host,
        )
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise CganError(
                f"--port {port}: another program uses it on {host}. End that, or take another port: "
                f"`--port {port % 65535 + 1}`; 0 is any free one."
            ) from None
        raise CganError(
            f"--host {host} --port {port}: cannot be used ({error.strerror or error}). Give others, such as "
            "127.0.0.1 and 8000."
        ) from None
    return listening


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    # uvicorn warns of what anybody may send; it is refused and logged in words of ours.
    for name, level in (("cgan", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
