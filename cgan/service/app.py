"""The addresses of the service, and how each is answered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cgan import __version__
from cgan.service import openapi
from cgan.service.answer import Answer, form_for
from cgan.service.batching import Batcher
from cgan.service.guard import METHODS, App, Guard, Metrics
from cgan.service.question import (
    MAX_BODY_BYTES,
    Question,
    RefusedError,
    from_body,
    from_query,
)
from cgan.service.served import Keeper, Served

MAX_REQUESTS = 256  # to draw, at once
MAX_BYTES = 2**29  # that their answers take while they are made
QUICK_BYTES = 2**22  # of an answer that is made in milliseconds
BODY_S = 10.0  # for a body to arrive
RETRY = {"Retry-After": "1"}
_Answering = TypeVar("_Answering", bound=Callable[..., Any])


class Service:
    """What the addresses share. `close()` ends its threads, of which `threads` draw."""

    def __init__(self, keeper: Keeper, threads: int = 1) -> None:
        self.keeper = keeper
        self.metrics = Metrics(keeper)
        self._requests = self._bytes = self._undrawn = 0  # of the event loop's thread alone
        self._batcher = Batcher(lambda: self._undrawn, self.metrics.drawn, threads)
        # Large answers take seconds: small ones don't stand behind them.
        self._quick, self._slow = ThreadPoolExecutor(2, "quick"), ThreadPoolExecutor(2, "slow")

    def close(self) -> None:
        self._batcher.close()
        self._quick.shutdown()
        self._slow.shutdown()

    def served(self) -> Served:
        served = self.keeper.current
        if served is None:
            raise RefusedError(
                503, f"nothing is served yet: {self.keeper.problem} Try again in a moment.", RETRY
            )
        return served

    @contextlib.contextmanager
    def admitted(self, answer: Answer) -> Iterator[None]:
        """Until the answer has gone. Raises RefusedError (429) when too much is on already."""
        if self._requests >= MAX_REQUESTS or self._bytes + answer.size > MAX_BYTES:
            raise RefusedError(
                429,
                f"the service draws for {self._requests:,} others, and takes at most {MAX_REQUESTS:,} and "
                f"{MAX_BYTES >> 20} MiB of pictures at once. Try again in a second.",
                RETRY,
            )
        self._requests += 1
        self._bytes += answer.size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= answer.size

    async def drawn(self, answer: Answer, served: Served) -> bytes:
        question = answer.question
        self._undrawn += 1
        try:
            images = await asyncio.wrap_future(
                self._batcher.submit(
                    served.generator.network,
                    served.passes,
                    question.all_labels,
                    question.seed,
                )
            )
        finally:
            self._undrawn -= 1
        slow = answer.size > QUICK_BYTES
        body: bytes = await self.apart(answer.encoded, images, served, slow=slow)
        return body

    async def apart(self, function: Any, *arguments: Any, slow: bool = False) -> Any:
        """Run it on a thread, so that others are answered meanwhile."""
        pool = self._slow if slow else self._quick
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def make_app(service: Service) -> App:
    """The ASGI application."""
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
    return Guard(app, service.metrics)


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
        html = await service.apart(lambda: served.page, slow=True)
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
    async def answered(request: Request, question: Question, served: Served, form: str) -> Response:
        answer = Answer.planned(question, served.generator.shape, form)
        request.scope["held"].enter_context(service.admitted(answer))
        request.scope["note"] = f"{len(question.labels) * question.rows} drawn"
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
        question = await service.apart(from_body, body, served.generator)
        return await answered(request, question, served, form)

    @_reading(app, "/draw", openapi.GET_DRAW)
    async def drawing(request: Request) -> Response:
        served = service.served()
        form = form_for(", ".join(request.headers.getlist("accept")))
        try:
            pairs = parse_qsl(
                request.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=20,
            )
        except ValueError:
            raise RefusedError(
                400, "the query: expected fields in UTF-8, as in ?text=2024&seed=7, found others."
            ) from None
        question = await service.apart(from_query, pairs, served.generator)
        return await answered(request, question, served, form)


async def _body_of(request: Request) -> bytes:
    """Raises RefusedError (413, 408) for one that is too large or too slow."""
    too_large = RefusedError(
        413,
        f"the body: at most {MAX_BODY_BYTES:,} bytes are read. Ask for less at once; `count` draws variants.",
        {"Connection": "close"},
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise RefusedError(
            408, f"the body: it did not arrive within {BODY_S:.0f} s. Send it at once.",
            {"Connection": "close"},
        ) from None  # fmt: skip
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
        served, age = keeper.current, keeper.answer_age_s()
        registry = {
            "follows": keeper.alias,
            "answers": keeper.alias and keeper.answers,
            "seconds_since_answer": None if age is None else round(age, 1),
            "problem": keeper.problem,
        }
        state = {
            "ready": served is not None,
            "model": served and served.identity(),
            "registry": registry if keeper.alias else None,
        }
        return JSONResponse(state, 200 if served else 503, {} if served else RETRY)

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
    detail = f"{path!a}: there is no such address. There are {', '.join(METHODS)}."
    return JSONResponse({"detail": detail}, 404)


async def _no_method(request: Request, error: Exception) -> Response:
    path, method = request.scope["path"], request.method[:20]
    allowed = ", ".join(METHODS.get(path, ()))
    detail = f"{path}: expected {allowed}, found {method!a}. Use one of these."
    return JSONResponse({"detail": detail}, 405, {"Allow": allowed})


async def _failure(request: Request, error: Exception) -> Response:
    """The guard logs the error itself."""
    return JSONResponse({"detail": "the service failed; its log says how. Try again."}, 500)
