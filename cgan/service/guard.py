"""What every request passes through: it is counted, timed, logged, and what went wrong is told in JSON.

Headers that keep a browser from misreading an answer are set here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cgan.service.served import Keeper

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: not logged
PIECE_BYTES = 2**16
LOCAL_NAMES = ("localhost",)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
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
        age.set_function(lambda: float(_or_nan(keeper.answer_age_s())))

    def text(self) -> bytes:
        served = self._keeper.current
        self.model.clear()
        if served:
            version = "" if served.version is None else str(served.version)
            self.model.labels(served.digest, version, served.alias or "").set(1)
        return generate_latest(self.registry)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


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
        self._names = None if names is None else {*LOCAL_NAMES, *map(str.lower, names)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = str(scope["path"]), str(scope["method"])
        route = path if path in self._routes else "other"
        began, status, started = time.perf_counter(), 0, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                given = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(pair for pair in HEADERS if pair[0] not in given),
                ]
                await send(message)
                return
            # In pieces, each of which waits for the client to read: what is not read stays counted.
            body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
            for end in range(PIECE_BYTES, max(len(body), 1) + PIECE_BYTES, PIECE_BYTES):
                piece = {
                    "body": bytes(body[end - PIECE_BYTES : end]),
                    "more_body": more or end < len(body),
                }
                await send({"type": message["type"], **piece})

        self._metrics.in_flight.inc()
        scope["note"] = ""
        try:
            with contextlib.ExitStack() as held:
                scope["held"] = held
                if self._is_ours(scope):
                    await self._app(scope, receive, answer)
                else:
                    await answer_json(answer, 421, FOREIGN_HOST)
        except Exception:
            log.exception("an answer failed")
            if not started:
                await answer_json(answer, 500, "the service failed; its log says how. Try again.")
        finally:
            seconds = time.perf_counter() - began
            self._metrics.in_flight.dec()
            known = method if method in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.labels(route, known, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in QUIET and status == 200 else logging.INFO
            client = (scope.get("client") or ("-",))[0]
            words = ascii(path[:80])[1:-1], status, scope["note"], seconds * 1000
            log.log(level, "%s %s %s %d %s %.0f ms", client, method[:10], *words)

    def _is_ours(self, scope: Message) -> bool:
        """Does the request's Host name this machine? A page of others whose name was turned to this machine
        (DNS rebinding) has that name there; a browser always sends one."""
        if self._names is None:
            return True
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        return all(is_loopback(name := name_of(host)) or name in self._names for host in hosts)


def name_of(host: str) -> str:
    """Of the value of Host, without the port, in small letters."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def answer_json(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
