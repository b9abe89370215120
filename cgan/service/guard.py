"""What every request passes through: it is counted, timed, logged, and what went wrong is told in JSON.

Headers that keep a browser from misreading an answer are set here, and slow readers are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cgan.service.served import Keeper

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

METHODS = {
    "/": ("GET", "HEAD"),
    "/draw": ("GET", "HEAD", "POST"),
    "/model": ("GET", "HEAD"),
    "/healthz": ("GET", "HEAD"),
    "/readyz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
    "/openapi.json": ("GET", "HEAD"),
}
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: not logged
SEND_S = 30.0  # for a piece of an answer to leave
PIECE_BYTES = 2**16
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
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
        self.pass_rows = Histogram(
            "cgan_pass_rows", "Images of one pass through the network.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=kept,
        )  # fmt: skip
        self.pass_requests = Histogram(
            "cgan_pass_requests", "Requests that shared one pass.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=kept,
        )  # fmt: skip
        self.model = Gauge(
            "cgan_model_info", "What is served: always 1.", ["digest", "version", "alias"], registry=kept
        )  # fmt: skip
        age = Gauge(
            "cgan_registry_answer_age_seconds", "Since the registry last answered; NaN: never, or not asked.",
            registry=kept,
        )  # fmt: skip
        age.set_function(lambda: float(_or_nan(keeper.answer_age_s())))

    def drawn(self, rows: int, requests: int) -> None:
        self.drawings.inc(rows)
        self.pass_rows.observe(rows)
        self.pass_requests.observe(requests)

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
    is entered there is left when the answer has gone, or the client."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = str(scope["path"]), str(scope["method"])
        route = path if path in METHODS else "other"
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
            # In pieces: each waits until the client has read most of those before.
            body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
            for at in range(0, max(len(body), 1), PIECE_BYTES):
                last = at + PIECE_BYTES >= len(body)
                piece = {"type": message["type"], "body": bytes(body[at : at + PIECE_BYTES])}
                async with asyncio.timeout(SEND_S):
                    await send({**piece, "more_body": more or not last})

        self._metrics.in_flight.inc()
        scope["note"] = ""
        try:
            with contextlib.ExitStack() as held:
                scope["held"] = held
                await self._app(scope, receive, answer)
        except TimeoutError:
            scope["note"] = "given up: the client does not read"
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


async def answer_json(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
