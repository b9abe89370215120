"""`cgan serve`: its addresses, how each is answered, and the server around them."""

import asyncio
import base64
import contextlib
import gc
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Literal

import anyio
import torch
import typer
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, Info, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from cgan import __version__
from cgan.base.errors import CganError
from cgan.base.hosts import LOOPBACK, is_loopback, require_free, site_of
from cgan.drawing.generator import MAX_SEED
from cgan.drawing.picture import compose
from cgan.models.sampling import encode_png
from cgan.service.provider import GeneratorProvider, ServedGenerator

MAX_DRAWINGS = 10_000  # of one answer
MAX_SCALE = 64
MAX_VALUES = 2**24  # pixels × colours of one answer
MAX_ANSWER_S = 20.0  # of a core, for one answer
DRAWING_THREADS = 8  # more at once would only take memory and keep each other waiting
POLL_S = 30.0  # between two looks at the registry
MAX_CONNECTIONS = 1000  # more get 503
THIS_MACHINE = ("localhost", LOOPBACK, "[::1]")
REQUESTS = Counter("cgan_requests", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram("cgan_request_seconds", "Time from a request to its answer.", ["route"])
DRAWINGS = Counter("cgan_drawings", "Images drawn.")
MODEL = Info("cgan_model", "What is served.")
router = APIRouter()


def serve(model: str | None, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises CganError when it cannot begin."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("cgan", "uvicorn.access"):
        logging.getLogger(name).setLevel("INFO")
    require_free(host, port, "--port")
    # As in `cgan draw` each thread computes on one core, so that images have the bits that they get there.
    torch.set_num_threads(1)
    provider = GeneratorProvider(model)
    provider.poll()
    gc.freeze()  # else the collector goes through torch's modules, .3 s, as requests are answered
    generator = provider.current.description if provider.current else "nothing yet"
    typer.echo(f"{site_of(host, port)} serves {generator} (Ctrl-C ends it)")
    uvicorn.Server(config_for(provider, host, port)).run()


def config_for(provider: GeneratorProvider, host: str, port: int) -> uvicorn.Config:
    """The server's settings. Where others can reach it, any host name is allowed; else a few are."""
    return uvicorn.Config(
        make_app(provider, (*THIS_MACHINE, host) if is_loopback(host) else ("*",)),
        host,
        port,
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
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

    app = FastAPI(
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
        return response

    @app.exception_handler(CganError)
    async def explain_refusal(_: Request, error: CganError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    return app


async def _current(request: Request) -> ServedGenerator:
    provider: GeneratorProvider = request.app.state.provider
    if provider.current is None:
        raise HTTPException(503, f"nothing is served yet: {provider.problem} Try again soon.")
    return provider.current


Current = Annotated[ServedGenerator, Depends(_current)]


@router.get("/", response_class=HTMLResponse)
def page(served: Current) -> Response:
    """A page to play with the generator."""
    return HTMLResponse(served.page, headers=served.headers)


class Question(BaseModel):
    """The query of /draw."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=MAX_DRAWINGS, examples=["2024"])]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    count: Annotated[int, Field(ge=1, le=MAX_DRAWINGS)] = 1
    scale: Annotated[int | None, Field(ge=1, le=MAX_SCALE)] = None
    format: Literal["png", "json"] = "png"


@router.get("/draw", responses={200: {"content": {"image/png": {}, "application/json": {}}}})
def draw(served: Current, question: Annotated[Question, Query()]) -> Response:
    """`count` variants of each class of `text`, each pixel `scale` times as large; in one picture, or each in
    base64."""
    generator, seed, scale = served.generator, question.seed, question.scale
    labels = generator.labels(question.text)
    drawings = len(labels) * question.count
    values = drawings * math.prod(generator.shape) * (scale or 1) ** 2
    most = MAX_DRAWINGS
    if seconds := generator.model.seconds_per_drawing:
        most = min(most, max(1, int(MAX_ANSWER_S / seconds)))
    if drawings > most or values > MAX_VALUES:  # before anything is drawn
        raise CganError(
            f"{len(labels):,} classes × {question.count:,} variants are {drawings:,} drawings of {values:,} "
            f"values (pixels × colours), expected at most {most:,} and {MAX_VALUES:,}. "
            "Ask several times, with other seeds, or for a smaller `scale`."
        )
    DRAWINGS.inc(drawings)
    headers = {**served.headers, "Cache-Control": "no-store"}
    if question.format == "png":
        _, picture = compose(
            generator.model, labels, question.count, seed, scale, max_bytes=MAX_VALUES
        )
        return Response(encode_png(picture), media_type="image/png", headers=headers)
    labels *= question.count
    images = generator.draw(labels, seed).repeat(scale or 1, 1).repeat(scale or 1, 2)
    pngs = [base64.b64encode(encode_png(image)).decode() for image in images]
    items = [{"label": label, "png_base64": png} for label, png in zip(labels, pngs, strict=True)]
    return JSONResponse({"seed": seed, "model": served.facts, "drawings": items}, headers=headers)


@router.get("/healthz")
async def health(request: Request) -> Response:
    """Which model is served, since when, and whether the registry answers."""
    provider: GeneratorProvider = request.app.state.provider
    served = provider.current
    body = {"model": served and served.facts, "problem": provider.problem or None}
    return JSONResponse(body, 200 if served else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    provider: GeneratorProvider = request.app.state.provider
    if served := provider.current:
        MODEL.info({"digest": served.digest, "version": str(served.version or "")})
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
