"""The addresses of the service, and how each is answered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cgan import __version__
from cgan.model.sampling import CHUNK, latent_chunks, render_chunk
from cgan.service import openapi
from cgan.service.answer import DrawAnswer, form_for
from cgan.service.guard import App, Guard, Metrics
from cgan.service.question import (
    FIELDS,
    MAX_BODY_BYTES,
    DrawRequest,
    RefusedError,
    from_body,
    from_query,
)
from cgan.service.served import Keeper, Served

MAX_REQUESTS = 256  # to draw, at once
MAX_BYTES = 2**29  # that their answers take while they are made
QUICK_BYTES = 2**22  # of an answer that is made in milliseconds
MAX_FIELDS = 20  # of a query
MAX_FOREIGN = 64  # drawings for a page of another site
RETRY = {"Retry-After": "1"}
_Answering = TypeVar("_Answering", bound=Callable[..., Any])


class Service:
    """What the addresses share. `close()` ends its threads, of which `threads` draw.

    They draw a chunk at a time, in the order of asking, so that a request of thousands does not hold up one
    of ten, and on one core each, as `cgan draw` does, so that each image has the bits that it gets there."""

    def __init__(self, keeper: Keeper, threads: int = 1) -> None:
        self.keeper = keeper
        self.metrics = Metrics(keeper)
        self._requests = self._bytes = 0  # of the event loop's thread alone
        self._drawing = ThreadPoolExecutor(threads, "draw", torch.set_num_threads, (1,))
        self._slow = ThreadPoolExecutor(2, "slow")  # small answers don't stand behind large ones

    def close(self) -> None:
        self._drawing.shutdown()
        self._slow.shutdown()

    def served(self) -> Served:
        served = self.keeper.current
        if served is None:
            raise RefusedError(
                503, f"nothing is served yet: {self.keeper.problem} Try again in a moment.", RETRY
            )
        return served

    @contextlib.contextmanager
    def admitted(self, answer: DrawAnswer) -> Iterator[None]:
        """Until the answer has gone. Raises RefusedError (429) when too much is on already."""
        if self._requests >= MAX_REQUESTS or self._bytes + answer.size > MAX_BYTES:
            raise RefusedError(
                429,
                f"{self._requests:,} draw requests are in progress, and the service takes at most "
                f"{MAX_REQUESTS:,}, and {MAX_BYTES >> 20} MiB of pictures, at once. Try again in a second.",
                RETRY,
            )
        self._requests += 1
        self._bytes += answer.size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= answer.size

    async def drawn(self, answer: DrawAnswer, served: Served) -> bytes:
        network, question = served.generator.network, answer.question
        latents = latent_chunks(question.seed, network.architecture.latent_dim)
        images = []
        for labels in torch.tensor(question.all_labels).split(CHUNK):
            job = render_chunk, network, next(latents)[: len(labels)], labels
            images.append(await self.on_thread(self._drawing, *job))
            self.metrics.drawings.inc(len(labels))
        pool = self._slow if answer.size > QUICK_BYTES else None
        body: bytes = await self.on_thread(pool, answer.encoded, torch.cat(images), served)
        return body

    async def page(self, served: Served) -> bytes:
        page: bytes = await self.on_thread(self._slow, lambda: served.page)
        return page

    @staticmethod
    async def on_thread(pool: Executor | None, function: Any, *arguments: Any) -> Any:
        """Run it on a thread, of asyncio's own pool if on no other, so that others are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def make_app(service: Service, names: Collection[str] | None = ()) -> App:
    """The ASGI application. `names`: of the Host of requests, see `Guard`."""
    app = FastAPI(
        title="cgan", version=__version__, description=openapi.DESCRIPTION,
        docs_url=None, redoc_url=None,  # their scripts come from a foreign host
        redirect_slashes=False,
    )  # fmt: skip
    _add_people(app, service)
    _add_draw(app, service)
    _add_machines(app, service)
    app.add_exception_handler(RefusedError, _refusal)
    app.add_exception_handler(404, _no_address)
    app.add_exception_handler(405, _no_method)
    app.add_exception_handler(Exception, _failure)
    app.state.methods = methods = _methods(app)
    return Guard(app, service.metrics, methods, names)


def _methods(app: FastAPI) -> dict[str, list[str]]:
    """Each address with its methods, in the order in which they were added; FastAPI's own comes last."""
    methods: dict[str, list[str]] = {}
    routes: list[Any] = sorted(app.routes, key=lambda route: vars(route)["path"] == app.openapi_url)
    for route in routes:
        methods[route.path] = sorted({*methods.get(route.path, ()), *route.methods})
    return methods


def _reading(app: FastAPI, path: str, facts: dict[str, Any]) -> Callable[[_Answering], _Answering]:
    """Answers GET, and HEAD like it."""

    def added(function: _Answering) -> _Answering:
        app.head(path, include_in_schema=False)(function)
        app.get(path, **facts)(function)
        return function

    return added


def _add_people(app: FastAPI, service: Service) -> None:
    pages: dict[str, dict[str, str]] = {}

    @_reading(app, "/", openapi.PAGE)
    async def page() -> Response:
        served = service.served()
        html = await service.page(served)
        if served.digest not in pages:
            pages.clear()
            pages[served.digest] = {"Content-Security-Policy": policy_for(html.decode())}
        headers = {**pages[served.digest], **_names(served), "Cache-Control": "no-cache"}
        return Response(html, media_type="text/html", headers=headers)


def policy_for(html: str) -> str:
    """What a page may do: run its own scripts, by their hashes, and show pictures that it holds or makes.

    It may ask for nothing, here or elsewhere."""
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", html, re.DOTALL | re.IGNORECASE)
    hashes = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_draw(app: FastAPI, service: Service) -> None:
    async def answered(
        request: Request, question: DrawRequest, served: Served, form: str
    ) -> Response:
        answer = DrawAnswer.planned(question, served.generator.shape, form)
        request.scope["held"].enter_context(service.admitted(answer))
        request.scope["note"] = f"{question.drawings} drawn"
        body = await service.drawn(answer, served)
        headers = {**_names(served), "Vary": "Accept", "Cache-Control": "no-store"}
        return Response(body, media_type=form, headers=headers)

    @app.post("/draw", **openapi.POST_DRAW)
    async def draw(request: Request) -> Response:
        served = service.served()
        form = form_for(", ".join(request.headers.getlist("accept")))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(
                415,
                f"Content-Type: expected application/json, found {kind[:60] or 'none'!r}. With curl: "
                '--json \'{"text": "2024"}\'.',
            )
        body = await _body_of(request)
        question = await service.on_thread(None, from_body, body, served.generator)
        return await answered(request, question, served, form)

    @_reading(app, "/draw", openapi.GET_DRAW)
    async def drawing(request: Request) -> Response:
        served = service.served()
        form = form_for(", ".join(request.headers.getlist("accept")))
        query = request.scope["query_string"]
        if query.count(b"&") >= MAX_FIELDS:
            raise RefusedError(
                422,
                f"the query: expected at most {MAX_FIELDS} fields, found more. There are {FIELDS}.",
            )
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            raise RefusedError(
                400, "the query: expected fields in UTF-8, as in ?text=2024&seed=7, found others."
            ) from None
        question = await service.on_thread(None, from_query, pairs, served.generator)
        if (
            request.headers.get("sec-fetch-site") == "cross-site"
            and question.drawings > MAX_FOREIGN
        ):
            raise RefusedError(
                403,
                f"the request: it comes from a page of another site, for which at most {MAX_FOREIGN} "
                f"drawings are made at once; it asks for {question.drawings:,}. Ask for fewer.",
            )
        response = await answered(request, question, served, form)
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # for an <img> elsewhere
        return response


async def _body_of(request: Request) -> bytes:
    """Raises RefusedError (413, 499) for one that is too large, or whose client goes."""
    too_large = RefusedError(
        413,
        f"the body: at most {MAX_BODY_BYTES:,} bytes are read. Ask for less at once; `count` draws variants.",
        {"Connection": "close"},
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
        raise too_large
    body, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":  # nobody reads this; 499 is nginx's, to count it
            request.scope["note"] = "the client went away"
            raise RefusedError(499, "the client went away before its body had arrived.")
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return body


def _add_machines(app: FastAPI, service: Service) -> None:
    @_reading(app, "/model", openapi.MODEL)
    async def model() -> Response:
        served = service.served()
        return JSONResponse(served.about(), headers=_names(served))

    @_reading(app, "/healthz", openapi.HEALTH)
    async def health() -> Response:
        return JSONResponse({"alive": True})

    @_reading(app, "/readyz", openapi.READY)
    async def ready() -> Response:
        keeper = service.keeper
        served, look, age = keeper.current, keeper.look, keeper.answer_age_s()
        registry = {
            "follows": keeper.alias,
            "answers": look.answers,
            "seconds_since_answer": None if age is None else round(age, 1),
            "problem": look.problem,
        }
        is_ready = served is not None
        state = {
            "ready": is_ready,
            "model": served and served.identity(),
            "registry": registry if keeper.alias else None,
        }
        return JSONResponse(state, 200 if is_ready else 503, {} if is_ready else RETRY)

    @_reading(app, "/metrics", openapi.METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _names(served: Served) -> dict[str, str]:
    """Which model an answer is by."""
    version = {} if served.version is None else {"Cgan-Model-Version": str(served.version)}
    return {"Cgan-Model-Digest": served.digest, **version}


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"detail": str(error)}, error.status, error.headers)


async def _no_address(request: Request, error: Exception) -> Response:
    path = request.scope["path"][:80]
    there = ", ".join(request.app.state.methods)
    detail = f"{path!a}: there is no such address. There are {there}."
    return JSONResponse({"detail": detail}, 404)


async def _no_method(request: Request, error: Exception) -> Response:
    path, method = request.scope["path"], request.method[:20]
    allowed = ", ".join(request.app.state.methods.get(path, ()))
    detail = f"{path}: expected {allowed}, found {method!a}. Use one of these."
    return JSONResponse({"detail": detail}, 405, {"Allow": allowed})


async def _failure(request: Request, error: Exception) -> Response:
    """The guard logs the error itself."""
    return JSONResponse({"detail": "the service failed; its log says how. Try again."}, 500)
