"""`cgan serve`: the socket, the server around the application, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cgan.errors import CganError
from cgan.model.hardware import threads_at_hand
from cgan.service.app import Service, make_app
from cgan.service.guard import App
from cgan.service.served import Keeper

log = logging.getLogger("cgan.service")

HEAD_S = 10.0  # for a request's head to arrive, from the connection's start or the answer before
KEEP_ALIVE_S = 5
UNREAD_MS = 30_000  # for what was sent to be read
MAX_HEAD = 2**15  # bytes of a request's head
DRAIN_S = 30  # for answers that are on their way when the service is to end
MAX_CONNECTIONS = 1000


class Connection(H11Protocol):
    """uvicorn's, with limits that it doesn't have: on the number of connections, on the time that a request's
    head takes, and with refusals in JSON."""

    _deadline: asyncio.TimerHandle | None = None
    _ended = False  # the client sends no more

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            words = f"the service has {MAX_CONNECTIONS:,} connections. Try again in a second."
            self._refuse(b"429 Too Many Requests", words, b"retry-after: 1\r\n")
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may say that it sends no more, and wait for its answer."""
        self._ended = True
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ended and self.cycle.response_complete:
            self.transport.close()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # amid an answer: another one would be read as a part of it
            return
        error = sys.exc_info()[1]  # uvicorn calls this where it has caught one of h11's
        if getattr(error, "error_status_hint", 400) == 431:
            self._refuse(
                b"431 Request Header Fields Too Large",
                f"the request: expected a head of at most {MAX_HEAD:,} bytes, found a longer one. Send what "
                "is long as the body of POST /draw.",
            )
            return
        reason = str(error)[:80].encode("ascii", "backslashreplace").decode()
        reason = "".join(sign for sign in reason if sign.isprintable())
        self._refuse(
            b"400 Bad Request", f"the request: expected HTTP/1.1, found something else ({reason})."
        )

    def _refuse(self, status: bytes, detail: str, more: bytes = b"") -> None:
        body = json.dumps({"detail": detail}).encode()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s"
        client = (self.client or ("-",))[0]
        log.info("%s %s: %s", client, status.decode(), detail)
        self.transport.write(head % (status, len(body), more) + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _watch(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if not waits:
            self._unwatch()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """Says when it listens, and ends well when it is asked to: SIGTERM and Ctrl-C are no failures."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # which alone gets them
            yield
            return
        # uvicorn's own raises them again when all is done, and the process would end by them.
        before = {
            name: signal.signal(name, self.handle_exit) for name in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def serve(model: str | None, host: str, port: int, allow_remote: bool) -> None:
    """Until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    _log_to_stderr()
    listening = listen(host, port, allow_remote)
    threads = threads_at_hand()
    torch.set_num_threads(
        1
    )  # of an operator: chunks are drawn side by side instead, as `cgan draw` does
    keeper = Keeper(model)
    service = Service(keeper, threads)
    address = f"[{host}]" if ":" in host else host

    def ready() -> None:
        what = keeper.current.named if keeper.current else f"nothing yet: {keeper.problem}"
        url = f"http://{address}:{listening.getsockname()[1]}"
        sys.stdout.write(f"{url} serves {what} (Ctrl-C ends it)\n")
        sys.stdout.flush()

    keeper.follow()
    try:
        Server(config_for(make_app(service, None if allow_remote else [host])), ready).run(
            [listening]
        )
    finally:
        keeper.stop()
        service.close()


def config_for(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
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
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
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
