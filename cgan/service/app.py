"""`cgan serve`: its addresses, how each is answered, and the server around them."""

import asyncio
import base64
import contextlib
import gc
import inspect
import logging
import math
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Literal

import anyio
import torch
import typer
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, generate_latest
from uvicorn.protocols.http.h11_impl import H11Protocol

from cgan import __version__
from cgan.drawing.generator import MAX_ANSWER_S, MAX_SEED
from cgan.drawing.picture import MAX_SCALE, compose
from cgan.errors import CganError
from cgan.hosts import LOOPBACK, is_loopback, require_free, site_of
from cgan.model.sampling import encode_png
from cgan.service.provider import GeneratorProvider, ServedGenerator
from cgan.text import listed

MAX_DRAWINGS = 10_000  # of one answer
MAX_VALUES = 2**24  # pixels × colours of one answer
DRAWING_THREADS = 8  # more at once would only take memory and keep each other waiting
POLL_S = 2.0  # between two looks at the registry
MAX_CONNECTIONS = 1000
# File descriptors of the process: those that are no connections; and enough for MAX_CONNECTIONS and a queue
# that a burst does not fill.
OTHER_DESCRIPTORS, ENOUGH_DESCRIPTORS = 100, 4096
MAX_IDLE_S = 60  # of a connection that says nothing
TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n"
    b"X-Content-Type-Options: nosniff\r\nContent-Length: 20\r\nConnection: close\r\n\r\nToo many connections"
)
THIS_MACHINE = ("localhost", LOOPBACK, "[::1]")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    # For an <img> elsewhere; a page of ours has a policy of its own.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
REQUESTS = Counter("cgan_requests", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram("cgan_request_seconds", "Time from a request to its answer.", ["route"])
DRAWINGS = Counter("cgan_drawings", "Images drawn.")
MODEL = Info("cgan_model", "What is served.")
AGE = Gauge(
    "cgan_registry_answer_age_seconds", "Time since the registry last answered; NaN: never."
)
INJECTED = ("request", "served")  # arguments of a route that are no part of its query
router = APIRouter()


def serve(model: str | None, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("cgan", "uvicorn.access"):
        logging.getLogger(name).setLevel("INFO")
    require_free(host, port, "--port")
    _raise_descriptor_limit()
    # As in `cgan draw` each thread computes on one core, so that images have the bits that they get there.
    torch.set_num_threads(1)
    provider = GeneratorProvider(model)
    provider.poll()
    gc.freeze()  # else the collector goes through torch's modules, .3 s, as requests are answered
    server = uvicorn.Server(config_for(provider, host, port))
    # When all is answered uvicorn raises the signal again, for these: exit code 0.
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, server.handle_exit)
    generator = provider.current.in_words if provider.current else "nothing yet"
    typer.echo(f"{site_of(host, port)} serves {generator} (Ctrl-C ends it)")
    server.run()


def _raise_descriptor_limit() -> None:
    """Raise the soft limit, which is 1,024, mostly, for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < ENOUGH_DESCRIPTORS:
        possible = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(possible, ENOUGH_DESCRIPTORS), hard))


class LimitedConnection(H11Protocol):
    """A connection that is closed if it is one too many, or says nothing for long. uvicorn refuses requests
    that are too many, but keeps connections until the process has no descriptor left."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) >= (self.limit_concurrency or MAX_CONNECTIONS):
            transport.write(TOO_MANY_CONNECTIONS)
            transport.close()
        else:  # the first data ends this timer, as it does between two requests
            close = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(MAX_IDLE_S, close)


def config_for(provider: GeneratorProvider, host: str, port: int) -> uvicorn.Config:
    """The server's settings. What others can reach has any name that its owner gives it; what only this
    machine can, has few."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = max(10, min(MAX_CONNECTIONS, descriptors - OTHER_DESCRIPTORS))
    return uvicorn.Config(
        make_app(provider, (*THIS_MACHINE, host) if is_loopback(host) else ("*",)),
        host,
        port,
        http=LimitedConnection,
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,  # more get 503
        # So many are accepted before one is closed that is too many, and again in each of a few rounds.
        backlog=max(1, min(2048, (descriptors - connections) // 5)),
        timeout_graceful_shutdown=30,  # seconds, for answers on their way
    )


def make_app(provider: GeneratorProvider, hosts: Sequence[str]) -> FastAPI:
    """The application. `hosts` are the names that the header Host may have."""

    async def poll_registry() -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await anyio.to_thread.run_sync(provider.poll)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = DRAWING_THREADS
        polling = asyncio.create_task(poll_registry())
        yield
        polling.cancel()  # when a poll has ended: it sets what MLflow knows for the whole process
        with contextlib.suppress(asyncio.CancelledError):
            await polling

    app = FastAPIOffline(
        title="cgan",
        version=__version__,
        description="Draws classes of images. Equal seeds draw equal pictures, as `cgan draw` does.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.provider = provider
    app.include_router(router)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)

    @app.middleware("http")
    async def count_request(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began, status = time.perf_counter(), 500
        try:
            response = await call_next(request)
            status = response.status_code
        finally:
            route = getattr(request.scope.get("route"), "path", "other")
            method = request.method if request.method in ("GET", "HEAD") else "other"
            REQUESTS.labels(route, method, status).inc()
            SECONDS.labels(route).observe(time.perf_counter() - began)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(RequestValidationError)
    async def explain_invalid(_: Request, error: RequestValidationError) -> Response:
        """Pydantic's words, with where and what was found."""
        faults = []
        for fault in error.errors()[:5]:
            words = f"{fault['loc'][-1]!s:.40}: {fault['msg']}"
            if fault["input"] is not None:
                words += f", found {str(fault['input'])[:80] or 'nothing'}"
            faults.append(words)
        return JSONResponse(
            {"detail": f"{'; '.join(faults)}. docs/service.md lists what /draw takes."}, 422
        )

    @app.exception_handler(CganError)
    async def explain_refusal(_: Request, error: CganError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    return app


async def _current(request: Request) -> ServedGenerator:
    provider: GeneratorProvider = request.app.state.provider
    if provider.current is None:
        detail = f"nothing is served yet: {provider.problem} Try again in a moment."
        raise HTTPException(503, detail, {"Retry-After": "1"})
    return provider.current


Current = Annotated[ServedGenerator, Depends(_current)]


@router.head("/", include_in_schema=False)
@router.get("/", response_class=HTMLResponse, summary="A page to play with the generator")
def page(served: Current) -> Response:
    policy = {"Content-Security-Policy": served.page.content_security_policy}
    content = served.page.html.encode(errors="replace")
    return HTMLResponse(content, headers=_version_headers(served) | policy)


@router.get(
    "/draw",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "application/json": {}}}},
    response_description="The drawings.",
    summary="Draw",
)
def draw(
    request: Request,
    served: Current,
    text: Annotated[
        str,
        Query(
            min_length=1,
            max_length=MAX_DRAWINGS,
            description='Classes, as in `cgan draw`: "2024"; of more than 10 classes "12,3 40".',
            examples=["2024"],
        ),
    ],
    seed: Annotated[int, Query(ge=0, le=MAX_SEED)] = 0,
    count: Annotated[int, Query(ge=1, le=MAX_DRAWINGS, description="Variants of each.")] = 1,
    scale: Annotated[
        int | None, Query(ge=1, le=MAX_SCALE, description="Enlarges each pixel so many times.")
    ] = None,
    format: Annotated[
        Literal["png", "json"], Query(description="One picture, or each by itself, in base64.")
    ] = "png",
) -> Response:
    accepted = [name for name in inspect.signature(draw).parameters if name not in INJECTED]
    if unknown := request.query_params.keys() - set(accepted):
        raise CganError(
            f"{listed(sorted(unknown))}: /draw takes {', '.join(accepted)} alone. docs/service.md"
        )
    labels = served.generator.labels(text)
    drawings = len(labels) * count
    values = drawings * math.prod(served.generator.shape) * (scale or 1) ** 2
    if drawings > MAX_DRAWINGS or values > MAX_VALUES:  # before anything is drawn
        raise CganError(
            f"{len(labels):,} classes × {count:,} variants are {drawings:,} drawings of {values:,} values "
            f"(pixels × colours), expected at most {MAX_DRAWINGS:,} and {MAX_VALUES:,}. Ask several times, "
            "with other seeds, or for a smaller `scale`."
        )
    most = served.generator.most_in(MAX_ANSWER_S)
    if most is not None and drawings > most:
        seconds = served.generator.model.seconds_per_drawing
        raise CganError(
            f"{len(labels):,} classes × {count:,} variants are {drawings:,} drawings, expected at most "
            f"{most:,}: this generator takes about {seconds:.2g} s each. Ask several times, with other seeds."
        )
    DRAWINGS.inc(drawings)
    headers = {**_version_headers(served), "Cache-Control": "no-store"}
    if format == "png":
        _, picture = compose(
            served.generator.model, labels, count, seed, scale, max_bytes=MAX_VALUES
        )
        return Response(encode_png(picture), media_type="image/png", headers=headers)
    labels *= count
    images = served.generator.draw(labels, seed).repeat(scale or 1, 1).repeat(scale or 1, 2)
    pngs = [base64.b64encode(encode_png(image)).decode() for image in images]
    items = [{"label": label, "png_base64": png} for label, png in zip(labels, pngs, strict=True)]
    return JSONResponse({"seed": seed, "model": served.facts, "drawings": items}, headers=headers)


@router.head("/healthz", include_in_schema=False)  # what asks whether a site is up sends HEAD
@router.get(
    "/healthz", summary="Which model is served, since when, and whether the registry answers"
)
async def health(request: Request) -> Response:
    provider: GeneratorProvider = request.app.state.provider
    served = provider.current
    body = {"model": served and served.facts, "problem": provider.problem or None}
    return JSONResponse(body, 200 if served else 503)


@router.get("/metrics", response_class=Response, summary="For Prometheus")
async def metrics(request: Request) -> Response:
    provider: GeneratorProvider = request.app.state.provider
    AGE.set(time.monotonic() - provider.last_answer_at)
    if served := provider.current:
        MODEL.info({"digest": served.digest, "version": str(served.version or "")})
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _version_headers(served: ServedGenerator) -> dict[str, str]:
    version = {} if served.version is None else {"Cgan-Model-Version": str(served.version)}
    return {"Cgan-Model-Digest": served.digest, **version}
