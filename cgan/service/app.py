"""The addresses of the service, and how each is answered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Annotated, Any

import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from cgan import __version__
from cgan.model.sampling import CHUNK, latent_chunks, render_chunk
from cgan.service.answer import FORMS, DrawAnswer, form_for
from cgan.service.guard import App, Guard, Metrics
from cgan.service.question import EXAMPLE, DrawQuery, DrawRequest, refusal
from cgan.service.served import Keeper, Served

MAX_REQUESTS = 256  # to draw, at once
MAX_BYTES = 2**29  # that their answers take while they are made
QUICK_BYTES = 2**22  # of an answer that is made in milliseconds
MAX_FOREIGN = 64  # drawings for a page of another site
RETRY = {"Retry-After": "1"}


class Problem(BaseModel):
    """An error: where, what was expected, what was found, what to do."""

    detail: str


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
            raise HTTPException(
                503, f"nothing is served yet: {self.keeper.problem} Try again in a moment.", RETRY
            )
        return served

    @contextlib.contextmanager
    def admitted(self, answer: DrawAnswer) -> Iterator[None]:
        """Until the answer has gone. Raises HTTPException (429) when too much is on already."""
        if self._requests >= MAX_REQUESTS or self._bytes + answer.size > MAX_BYTES:
            raise HTTPException(
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

    async def answered(self, request: Request, question: DrawQuery | DrawRequest) -> Response:
        served = self.served()
        form = form_for(", ".join(request.headers.getlist("accept")))
        answer = DrawAnswer.planned(question, served.generator, form)
        foreign = request.headers.get("sec-fetch-site") == "cross-site"
        if foreign and len(answer.labels) > MAX_FOREIGN:
            raise HTTPException(
                403,
                f"the request: it comes from a page of another site, for which at most {MAX_FOREIGN} "
                f"drawings are made at once; it asks for {len(answer.labels):,}. Ask for fewer.",
            )
        request.scope["held"].enter_context(self.admitted(answer))
        request.scope["note"] = f"{len(answer.labels)} drawn"
        network = served.generator.network
        latents = latent_chunks(question.seed, network.architecture.latent_dim)
        images = []
        for labels in torch.tensor(answer.labels).split(CHUNK):
            job = render_chunk, network, next(latents)[: len(labels)], labels
            images.append(await self.on_thread(self._drawing, *job))
            self.metrics.drawings.inc(len(labels))
        pool = self._slow if answer.size > QUICK_BYTES else None
        body = await self.on_thread(pool, answer.encoded, torch.cat(images), served)
        headers = {**_names(served), "Vary": "Accept", "Cache-Control": "no-store"}
        if request.method == "GET":
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # for an <img> elsewhere
        return Response(body, media_type=form, headers=headers)

    async def page(self, served: Served) -> tuple[bytes, str]:
        """The page, and its Content-Security-Policy."""
        html: bytes = await self.on_thread(self._slow, lambda: served.page)
        return html, await self.on_thread(self._slow, lambda: policy_for(html.decode()))

    @staticmethod
    async def on_thread(pool: Executor | None, function: Any, *arguments: Any) -> Any:
        """Run it on a thread, of asyncio's own pool if on no other, so that others are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def make_app(service: Service, names: Collection[str] | None = ()) -> App:
    """The ASGI application. `names`: of the Host of requests, see `Guard`."""
    app = FastAPI(
        title="cgan",
        version=__version__,
        description="Draws classes of images. Equal seeds draw equal pictures, as `cgan draw` does.",
        docs_url=None, redoc_url=None,  # their scripts come from a foreign host
        redirect_slashes=False,
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
    )  # fmt: skip
    _add_drawing(app, service)
    _add_machines(app, service)
    methods: dict[str, set[str]] = {}
    for path, route_methods in (
        (vars(route)["path"], vars(route)["methods"]) for route in app.routes
    ):
        head = {"HEAD"} if "GET" in route_methods else set()  # `Guard` answers it
        methods.setdefault(path, set()).update(route_methods, head)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        status, detail = refusal(error)
        return JSONResponse({"detail": detail}, status)

    @app.exception_handler(400)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def _refused(request: Request, error: HTTPException) -> Response:
        path, headers = request.scope["path"], {}
        if error.status_code == 404:
            detail = f"{path[:80]!a}: there is no such address. There are {', '.join(methods)}."
        elif error.status_code == 405:
            headers = {"Allow": ", ".join(sorted(methods[path]))}
            detail = f"{path}: expected {headers['Allow']}, found {request.method[:20]!a}."
        else:
            detail = f"the body: expected JSON in UTF-8, found something else. {EXAMPLE}"
        return JSONResponse({"detail": detail}, error.status_code, headers)

    @app.exception_handler(Exception)
    async def _failed(_: Request, __: Exception) -> Response:
        detail = "the service failed; its log says how. Try again."
        return JSONResponse({"detail": detail}, 500)

    return Guard(app, service.metrics, methods, names)


def _add_drawing(app: FastAPI, service: Service) -> None:
    drawn: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The drawings, in the form that the header Accept asks for.",
            "content": {form: {} for form in FORMS},
        }
    }

    @app.get("/", response_class=Response, summary="A page to play with the generator")
    async def page() -> Response:
        served = service.served()
        html, policy = await service.page(served)
        headers = {**_names(served), "Cache-Control": "no-cache", "Content-Security-Policy": policy}
        return Response(html, media_type="text/html", headers=headers)

    @app.post("/draw", response_class=Response, responses=drawn, summary="Draw")
    async def draw(request: Request, question: DrawRequest) -> Response:
        return await service.answered(request, question)

    @app.get(
        "/draw",
        response_class=Response,
        responses=drawn,
        summary="Draw, as an <img> may ask for it",
    )
    async def drawing(request: Request, question: Annotated[DrawQuery, Query()]) -> Response:
        return await service.answered(request, question)


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


def _add_machines(app: FastAPI, service: Service) -> None:
    @app.get("/model", summary="What is served: facts, metrics and their passport, version, digest")
    async def model() -> Response:
        served = service.served()
        return JSONResponse(served.about(), headers=_names(served))

    @app.get("/healthz", summary="Does the process live?")
    async def health() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz", summary="Is there a model, which, since when; does the registry answer?")
    async def ready() -> Response:
        keeper = service.keeper
        served, age = keeper.current, keeper.answer_age_s()
        registry = {
            "follows": keeper.alias,
            "answers": keeper.answers,
            "seconds_since_answer": None if age is None else round(age, 1),
            "problem": keeper.problem,
        }
        state = {
            "ready": served is not None,
            "model": served and served.identity(),
            "registry": registry if keeper.alias else None,
        }
        return JSONResponse(state, 200 if served else 503, {} if served else RETRY)

    @app.get("/metrics", response_class=Response, summary="For Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _names(served: Served) -> dict[str, str]:
    """Which model an answer is by."""
    version = {} if served.version is None else {"Cgan-Model-Version": str(served.version)}
    return {"Cgan-Model-Digest": served.digest, **version}
