"""`cgan serve`: the socket, the server around the application, and its end."""

from __future__ import annotations

import gc
import ipaddress
import logging
import signal
import socket

import torch
import typer
import uvicorn

from cgan.errors import CganError
from cgan.service.app import make_app
from cgan.service.served import Keeper

log = logging.getLogger("cgan.service")

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: logged only when they fail
LIMITS = {
    "limit_concurrency": 1000,  # connections; more get 503
    "timeout_keep_alive": 5,
    "timeout_graceful_shutdown": 30,  # for answers on their way when the service is to end
}


def serve(model: str | None, host: str, port: int, allow_remote: bool) -> None:
    """Until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    _log_to_stderr()
    listening = listen(host, port, allow_remote)
    # As in `cgan draw` each thread computes on one core, so that images have the bits that they get there.
    torch.set_num_threads(1)
    with Keeper(model) as keeper:
        gc.freeze()  # else the collector goes through torch's modules, .3 s, as requests are answered
        hosts = None if allow_remote else tuple(dict.fromkeys((*THIS_MACHINE, host.lower())))
        server = uvicorn.Server(config_for(keeper, hosts))
        # When all is answered uvicorn raises the signal again, for these: exit code 0.
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, server.handle_exit)
        url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        typer.echo(f"{url} serves {keeper.named} (Ctrl-C ends it)")
        server.run([listening])


def config_for(keeper: Keeper, hosts: tuple[str, ...] | None) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(keeper, hosts),
        http="h11",
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **LIMITS,  # type: ignore[arg-type]
    )


def listen(host: str, port: int, allow_remote: bool) -> socket.socket:
    """A listening socket. Raises CganError in words."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        raise CganError(
            f"--host {host[:100]} --port {port}: cannot be used ({error}). Give others, such as 127.0.0.1 "
            "and 8000; port 0 is any free one."
        ) from None
    # asyncio sets this only where a socket names its protocol; without, each answer waits 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback:
        if not allow_remote:
            listening.close()
            raise CganError(
                f"--host {host}: others than this machine could reach it, and the service asks nobody for a "
                "password. Add --allow-remote if that is meant; docs/security.md says what it means."
            )
        log.warning(
            "WARNING: bound to %s: whoever reaches this machine can have it draw. There is no password and "
            "no TLS; put a proxy in front for that.",
            host,
        )
    return listening


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # uvicorn logs each request under `uvicorn.access`, and warns of what anybody may send.
    for name, level in (("cgan", "INFO"), ("uvicorn.access", "INFO"), ("uvicorn.error", "ERROR")):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("uvicorn.access").addFilter(
        lambda line: not (line.args[2] in QUIET and line.args[4] == 200)  # type: ignore[index,operator]
    )
