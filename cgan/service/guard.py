"""What every request passes through: it is counted, timed, logged, and bounded.

Headers that keep a browser from misreading an answer are set here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cgan.service.served import Keeper

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: not logged
MAX_BODY_BYTES = 2**16  # of a request
PIECE_BYTES = 2**16  # of an answer
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
TOO_LARGE = (
    f"the body: at most {MAX_BODY_BYTES:,} bytes are read. Ask for less; `count` draws variants."
)
FOREIGN_HOST = (
    "the header Host: expected this machine, such as localhost or 127.0.0.1, found another name. Ask by one "
    "of these; behind a proxy, start the service with --allow-remote."
)


class Metrics:
    """For Prometheus, in a registry of its own."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.registry = kept = CollectorRegistry()
        self.requests = Counter(
            "cgan_requests", "Requests answered.", ["route", "method", "status"], registry=kept
        )
        self.seconds = Histogram(
            "cgan_request_seconds", "From the request's head to the answer's last byte.", ["route"],
            buckets=(.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30), registry=kept,
        )  # fmt: skip
        self.in_flight = Gauge("cgan_in_flight", "Requests being answered.", registry=kept)
        self.drawings = Counter("cgan_drawings", "Images drawn.", registry=kept)
        self.model = Gauge(
            "cgan_model_info", "What is served: always 1.", ["digest", "version", "alias"], registry=kept
        )  # fmt: skip
        age = Gauge(
            "cgan_registry_answer_age_seconds", "Since the registry last answered; NaN: never, or not asked.",
            registry=kept,
        )  # fmt: skip
        age.set_function(lambda: float("nan") if (s := keeper.answer_age_s()) is None else s)

    def text(self) -> bytes:
        served = self._keeper.current
        self.model.clear()
        if served:
            version = "" if served.version is None else str(served.version)
            self.model.labels(served.digest, version, served.alias or "").set(1)
        return generate_latest(self.registry)


class Guard:
    """An ASGI application around another. The inner one finds an ExitStack under `held` in the scope: what
    is entered there is left when the answer has gone, or was given up.

    `routes` are the addresses that are counted by their names. `names` are those that a request's Host may
    have beside this machine's own; None: any.
    """

    def __init__(
        self, app: App, metrics: Metrics, routes: Collection[str], names: Collection[str] | None
    ) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes
        self._names = None if names is None else {"localhost", *map(str.lower, names)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = str(scope["path"]), str(scope["method"])
        route = path if path in self._routes else "other"
        began, status, taken = time.perf_counter(), 0, 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE, {"Connection": "close"})
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [pair for pair in HEADERS if pair[0] not in given]
                await send({**message, "headers": [*message["headers"], *more]})
                return
            # In pieces, each of which waits for the client to read: what is not read stays counted.
            body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
            for end in range(PIECE_BYTES, max(len(body), 1) + PIECE_BYTES, PIECE_BYTES):
                piece = bytes(body[end - PIECE_BYTES : end])
                await send(
                    {"type": message["type"], "body": piece, "more_body": more or end < len(body)}
                )

        self._metrics.in_flight.inc()
        app = self._app if self._is_ours(scope) else JSONResponse({"detail": FOREIGN_HOST}, 421)
        # A HEAD is answered as a GET, whose body uvicorn leaves out.
        inner = {**scope, "method": "GET" if method == "HEAD" else method, "note": ""}
        try:
            with contextlib.ExitStack() as inner["held"]:
                await app(inner, bounded, answer)
        except Exception:
            log.exception("an answer failed")
        finally:
            seconds = time.perf_counter() - began
            self._metrics.in_flight.dec()
            known = method if method in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.labels(route, known, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in QUIET and status == 200 else logging.INFO
            client = (scope.get("client") or ("-",))[0]
            words = ascii(path[:80])[1:-1], status, inner["note"], seconds * 1000
            log.log(level, "%s %s %s %d %s %.0f ms", client, method[:10], *words)

    def _is_ours(self, scope: Message) -> bool:
        """Does the request's Host name this machine? A page of others whose name was turned to this machine
        (DNS rebinding) has that name there; a browser always sends one."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        return self._names is None or all(
            is_loopback(name := name_of(host)) or name in self._names for host in hosts
        )


def name_of(host: str) -> str:
    """Of the value of Host, without the port, in small letters."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
