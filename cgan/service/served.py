"""Which generator is served: chosen at the start, and, where it is an alias of the registry, followed.

A `Served` never changes. The keeper puts another in its place; a request goes on with the one it began with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_generator, save_network
from cgan.project import project_root
from cgan.quality.table import METRICS, Report, floors, stated
from cgan.registry.history import CHAMPION
from cgan.serving.class_names import names_in
from cgan.serving.generator import ALIASES, Generator, default_source
from cgan.tracking.store import BACKEND, STORE, is_absent, store_uri, without_credentials

if TYPE_CHECKING:
    from cgan.registry.client import Registry

log = logging.getLogger(__name__)

POLL_S = 2.0
RETRY_POLLS = 5  # a look at the registry that failed is repeated after so many
COPIES = Path(".cgan/served")  # of what is served, for a start while the registry is away


@dataclass(frozen=True)
class Served:
    """A generator, what is known of it, and since when it is served (UTC)."""

    generator: Generator
    source: str
    registered: str | None = None  # the registered model's name
    version: int | None = None
    alias: str | None = None
    quality: dict[str, Any] = field(default_factory=lambda: _known({}))
    kept: bool = False  # it is the copy on this disk, served because the registry cannot give it
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @cached_property
    def page(self) -> tuple[str, str]:
        """The page, and its Content-Security-Policy: it may run its own scripts, which the policy names by
        their hashes, and show pictures that it makes; it may ask for nothing, here or elsewhere."""
        from cgan.page.assemble import play_page

        page = play_page(self.generator)
        scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", page, re.DOTALL)
        hashes = [hashlib.sha256(script.encode(errors="replace")).digest() for script in scripts]
        allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
        return page, (
            f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    @property
    def digest(self) -> str:
        return str(self.generator.facts["digest"])

    @property
    def named(self) -> str:
        """For people."""
        if self.version is None:
            return f"{self.source} ({self.digest[:12]})"
        copy = ", the copy kept on this machine" if self.kept else ""
        return f"version {self.version} of `{self.registered}` ({self.digest[:12]}){copy}"

    @property
    def headers(self) -> dict[str, str]:
        version = {} if self.version is None else {"Cgan-Model-Version": str(self.version)}
        return {"Cgan-Model-Digest": self.digest, **version}

    def identity(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "version": self.version,
            "registered_model": self.registered,
            "alias": self.alias,
            "source": self.source,
            "kept_copy": self.kept,
            "since": self.since,
        }

    def about(self) -> dict[str, Any]:
        """All that is known; what isn't, is null."""
        return {
            **self.identity(),
            "classes": self.generator.classes,
            "class_names": names_in(self.generator.facts, self.generator.classes),
            "shape": self.generator.shape,
            **self.quality,
            "facts": self.generator.facts,
        }


def of_file(source: str) -> Served:
    """With the quality that the file states, as the package's own does. Raises ModelError where there is no
    usable generator."""
    generator = Generator.load(source)
    return Served(generator, source, quality=_known(stated(generator.facts)))


def _known(report: Report) -> dict[str, Any]:
    """Of an evaluation: metrics by their keys, what real images get, the context."""
    metrics = {k: v for k, metric in METRICS.items() if (v := metric.value(report)) is not None}
    known = {"metrics": metrics, "real_images": floors(report), "passport": report.get("passport")}
    return known if report else dict.fromkeys(known)


class Keeper:
    """Holds what is served. `model`: a file, an MLflow URI, an alias, or None: the champion; the project's
    generator or the package's own where the registry says that there is none, or where there is no registry.

    As a context it follows an alias, on a thread. Each version that is taken is copied to this disk, and that
    copy is served by a service that starts while the registry cannot be asked. Where there is no copy nothing
    is served (`current` is None) until the registry answers. Raises ModelError for a file or URI that has no
    usable generator.
    """

    def __init__(self, model: str | None = None, poll_s: float = POLL_S) -> None:
        self.current: Served | None = None
        self.problem: str | None = None  # with the registry, when it was last asked
        self.alias = CHAMPION if model is None else model if model in ALIASES else None
        self._default, self._poll_s = model is None, poll_s
        self._answered: float | None = None  # time.monotonic() of the registry's last answer
        self._stopped, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
        if self._default and importlib.util.find_spec("mlflow") is None:
            self.alias = None
        if self.alias:
            import mlflow  # noqa: F401 - where it is absent, the command says which extra brings it

            from cgan.registry.client import model_name

            self._model = model_name()
        named = any(os.environ.get(name, "").strip() for name in (STORE, BACKEND))
        if self.alias is None or (
            self._default
            and not named
            and is_absent(store_uri(project_root()))
            and not self._copy_path().exists()
        ):
            self.current = of_file(model or default_source()[0])

    def __enter__(self) -> Keeper:
        """When the registry was asked once."""
        if self.alias:
            self._thread.start()
            self._looked.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self.alias:
            self._thread.join(POLL_S)  # a call to a server that is away may take longer

    @property
    def named(self) -> str:
        return self.current.named if self.current else "nothing"

    def answer_age_s(self) -> float | None:
        """Seconds since the registry last answered; None if it never did, or is not asked."""
        return None if self._answered is None else time.monotonic() - self._answered

    def _follow(self) -> None:
        """The store is opened once, and again after it failed."""
        from cgan.registry.client import open_registry

        while not self._stopped.is_set():
            try:
                with open_registry(self._model) as registry:
                    while not is_absent(registry.uri):
                        self._look(registry)
                        self._looked.set()
                        if self._stopped.wait(self._poll_s):
                            return
                continue
            except CganError as error:
                self._failed(str(error))
            except Exception as error:  # such as no memory, no disk, or what a store lets through
                log.exception("looking at the registry failed")
                self._failed(f"looking at the registry failed ({type(error).__name__}).")
            self._looked.set()
            self._stopped.wait(RETRY_POLLS * self._poll_s)

    def _look(self, registry: Registry) -> None:
        """Take the version that has the alias, if it is another than what is served."""
        number = registry.aliases().get(str(self.alias))
        self._answered = time.monotonic()
        if number is None:
            if self.current is None and self._default:
                self.current = of_file(default_source()[0])
            self._note(f"`{registry.model}` has no {self.alias} in {registry.shown}.")
            return
        if self.current is None or self.current.kept or number != self.current.version:
            self._take(registry, number)
        self._note(None)

    def _take(self, registry: Registry, number: int) -> None:
        from cgan.registry.archive import evaluation_of, generator_file, readable

        failed = f"the {self.alias}, version {number} of `{registry.model}`, cannot be loaded"
        try:
            if self.current is None:  # at the start: one that was champion before will do
                taken, (network, facts) = readable(registry, str(self.alias), load_generator)
            else:
                with generator_file(f"models:/{registry.model}/{number}") as path:
                    taken, (network, facts) = number, load_generator(path)
        except ModelError as error:
            raise ModelError(f"{failed}: {error}") from None
        source = f"models:/{registry.model}/{taken}"
        quality = _known(evaluation_of(registry, registry.version(taken).run_id))
        generator = Generator(network, facts, source)
        self.current = Served(generator, source, registry.model, taken, self.alias, quality)
        log.info("served is now %s", self.current.named)
        if taken != number:
            raise ModelError(f"{failed}.")
        try:
            save_network(self._copy_path(), network, {**facts, "registry_version": number})
        except OSError as error:
            log.warning("no copy is kept for a start while the registry is away: %s", error)

    def _failed(self, problem: str) -> None:
        """What is served stays; at the start it is the copy on this disk."""
        if self.current is None:
            with contextlib.suppress(CganError, OSError):
                self.current = self._copy()
        no_registry_yet = self._answered is None and self.current and not self.current.version
        self._note(None if no_registry_yet else problem)

    def _note(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            log.warning("%s Served for now: %s.", problem, self.named)
        self.problem = problem

    def _copy_path(self) -> Path:
        """Of this store, model and alias alone."""
        store = without_credentials(store_uri(project_root()))
        key = hashlib.sha256(f"{store} {self._model} {self.alias}".encode()).hexdigest()[:16]
        return project_root() / COPIES / f"{self._model}-{self.alias}-{key}.safetensors"

    def _copy(self) -> Served:
        """What was kept of the version that was served last. Raises ModelError where there is nothing."""
        path = self._copy_path()
        network, facts = load_generator(path)
        version, generator = int(facts.pop("registry_version")), Generator(network, facts, path)
        return Served(generator, str(path), self._model, version, self.alias, kept=True)
