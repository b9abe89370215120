"""`cgan serve`: the server around the application, and its end."""

from __future__ import annotations

import gc
import logging
import signal

import torch
import typer
import uvicorn

from cgan.hosts import LOOPBACK, is_loopback, require_free, site_of
from cgan.service.app import make_app
from cgan.service.served import Keeper

THIS_MACHINE = ("localhost", LOOPBACK, "::1")


def serve(model: str | None, host: str, port: int) -> None:
    """Until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("cgan", "uvicorn.access"):
        logging.getLogger(name).setLevel("INFO")
    require_free(host, port, "--port")
    # As in `cgan draw` each thread computes on one core, so that images have the bits that they get there.
    torch.set_num_threads(1)
    keeper = Keeper(model)
    keeper.look()
    gc.freeze()  # else the collector goes through torch's modules, .3 s, as requests are answered
    server = uvicorn.Server(config_for(keeper, host, port))
    # When all is answered uvicorn raises the signal again, for these: exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    named = keeper.current.named if keeper.current else "nothing yet"
    typer.echo(f"{site_of(host, port)} serves {named} (Ctrl-C ends it)")
    server.run()


def config_for(keeper: Keeper, host: str, port: int) -> uvicorn.Config:
    """What others can reach has any name that its owner gives it; what only this machine can, has few."""
    return uvicorn.Config(
        make_app(keeper, (*THIS_MACHINE, host) if is_loopback(host) else ("*",)),
        host,
        port,
        http="h11",
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=1000,  # connections; more get 503
        timeout_graceful_shutdown=30,  # for answers on their way when the service is to end
    )
