"""The addresses of the service, and how each is answered."""

from __future__ import annotations

import contextlib
import html
import reprlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, generate_latest
from pydantic import BaseModel

from cgan import __version__
from cgan.errors import CganError
from cgan.service.drawing import FORMS, DrawQuery, DrawRequest, answer, form_for
from cgan.service.served import Keeper, Served

MAX_BODY_BYTES = 2**16  # of a request
SHOWN = 5  # faults of one request
THREADS = 8  # that draw
EXAMPLE = ' Send JSON as Content-Type: application/json, such as {"text": "2024", "seed": 7}.'
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
HOW_TO_CALL = """<section class="play-card">
<h2>From code</h2>
<p class="play-faint">Served: {served}. All addresses: <a href="docs">docs</a>.</p>
<pre>curl -o drawn.png '{url}'

# Python
from urllib.request import urlopen
png = urlopen("{url}").read()</pre>
</section>
"""
REQUESTS = Counter("cgan_requests", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram(
    "cgan_request_seconds", "From a request to its answer.", ["route"],
    buckets=(.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30),
)  # fmt: skip
IN_FLIGHT = Gauge("cgan_in_flight", "Requests being answered.")
DRAWINGS = Counter("cgan_drawings", "Images drawn.")
MODEL = Info("cgan_model", "What is served.")
AGE = Gauge(
    "cgan_registry_answer_age_seconds", "Since the registry answered; NaN: never or not asked."
)
router = APIRouter()


class Problem(BaseModel):
    """An error: where, what was expected, what was found, what to do."""

    detail: str


def make_app(keeper: Keeper, hosts: Collection[str] | None = None) -> FastAPI:
    """The application. `hosts` are the names that the header Host may have, None: any."""
    app = FastAPIOffline(
        title="cgan",
        version=__version__,
        description="Draws classes of images. Equal seeds draw equal pictures, as `cgan draw` does.",
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": Problem}},
        lifespan=_few_threads,
    )
    app.state.keeper = keeper
    app.include_router(router)

    @app.middleware("http")
    async def every_request(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began, status = time.perf_counter(), 500
        try:
            with IN_FLIGHT.track_inprogress():
                response = _refused(request, hosts) or await call_next(request)
            status = response.status_code
        finally:
            route = getattr(request.scope.get("route"), "path", "other")
            method = request.method if request.method in ("GET", "POST") else "other"
            REQUESTS.labels(route, method, status).inc()
            SECONDS.labels(route).observe(time.perf_counter() - began)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        words = "; ".join(map(_in_words, error.errors()[:SHOWN]))
        return JSONResponse({"detail": f"{words}.{EXAMPLE * (request.method == 'POST')}"}, 422)

    @app.exception_handler(CganError)
    async def impossible(_: Request, error: CganError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    return app


@contextlib.asynccontextmanager
async def _few_threads(_: FastAPI) -> AsyncIterator[None]:
    """More drawing at once would only take memory and keep each other waiting."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _refused(request: Request, hosts: Collection[str] | None) -> Response | None:
    """A page whose name was turned to this machine (DNS rebinding) has that name in Host."""
    if hosts is not None and request.url.hostname not in hosts:
        detail = (
            f"the header Host: expected one of {', '.join(hosts)}, found another name. Behind a proxy, start "
            "the service with --allow-remote."
        )
        return JSONResponse({"detail": detail}, 421)
    length = int(request.headers.get("content-length", 0))
    if length > MAX_BODY_BYTES or "transfer-encoding" in request.headers:
        detail = (
            f"the body: expected a Content-Length of at most {MAX_BODY_BYTES:,} bytes, found "
            f"{f'{length:,}' if length else 'none'}. Ask for less; `count` draws variants."
        )
        return JSONResponse({"detail": detail}, 413, {"Connection": "close"})
    return None


def _in_words(fault: dict[str, Any]) -> str:
    """Pydantic's, with what was found."""
    words = f"{'.'.join(str(part)[:40] for part in fault['loc'])}: {fault['msg']}"
    if fault["input"] not in ({}, None):
        words += f", found {reprlib.repr(fault['input'])}"
    return words.encode("utf-8", "backslashreplace").decode()


async def _current(request: Request) -> Served:
    keeper: Keeper = request.app.state.keeper
    if keeper.current is None:
        detail = f"nothing is served yet: {keeper.problem} Try again in a moment."
        raise HTTPException(503, detail, {"Retry-After": "1"})
    return keeper.current


Current = Annotated[Served, Depends(_current)]


@router.get("/", response_class=HTMLResponse, summary="A page to play with the generator")
def page(request: Request, served: Current) -> Response:
    document, policy = served.page
    text = quote(",".join(served.generator.class_names[:4]), safe=",")
    url = html.escape(f"{request.base_url}draw?text={text}&seed=7")
    how = HOW_TO_CALL.format(served=html.escape(served.named), url=url)
    body = document.replace("</main>", f"{how}</main>", 1).encode(errors="replace")
    return HTMLResponse(body, headers={**served.headers, "Content-Security-Policy": policy})


def _drawn(request: Request, question: DrawQuery, served: Served) -> Response:
    accept = ", ".join(request.headers.getlist("accept"))
    form = form_for(accept)
    if form is None:
        raise HTTPException(
            406, f"the header Accept: expected one of {', '.join(FORMS)}, found {accept[:100]!r}."
        )
    body, count = answer(question, form, served.generator, served.identity())
    DRAWINGS.inc(count)
    headers = {**served.headers, "Vary": "Accept", "Cache-Control": "no-store"}
    return Response(body, media_type=form, headers=headers)


DRAWN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The drawings, in the form that the header Accept asks for.",
        "content": {form: {} for form in FORMS},
    }
}


@router.get("/draw", response_class=Response, responses=DRAWN, summary="Draw, as an <img> may ask")
def draw_by_query(
    request: Request, question: Annotated[DrawQuery, Query()], served: Current
) -> Response:
    response = _drawn(request, question, served)
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # for an <img> elsewhere
    return response


@router.post("/draw", response_class=Response, responses=DRAWN, summary="Draw")
def draw(request: Request, question: DrawRequest, served: Current) -> Response:
    return _drawn(request, question, served)


@router.get(
    "/model",
    summary="What is served: facts, metrics and their measurement context, version, digest",
)
async def model(served: Current) -> Response:
    return JSONResponse(served.about(), headers=served.headers)


@router.get("/healthz", summary="Does the process live?")
async def health() -> dict[str, bool]:
    return {"alive": True}


@router.get("/readyz", summary="Is there a model, which, since when; does the registry answer?")
async def ready(request: Request) -> Response:
    keeper: Keeper = request.app.state.keeper
    served, age = keeper.current, keeper.answer_age_s()
    state = {
        "ready": served is not None,
        "model": served and served.identity(),
        "registry": keeper.alias
        and {
            "follows": keeper.alias,
            "seconds_since_answer": age and round(age, 1),
            "problem": keeper.problem,
        },
    }
    return JSONResponse(state, 200 if served else 503)


@router.get("/metrics", response_class=Response, summary="For Prometheus")
async def metrics(request: Request) -> Response:
    keeper: Keeper = request.app.state.keeper
    age = keeper.answer_age_s()
    AGE.set(float("nan") if age is None else age)
    if served := keeper.current:
        version, alias = str(served.version or ""), served.alias or ""
        MODEL.info({"digest": served.digest, "version": version, "alias": alias})
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
