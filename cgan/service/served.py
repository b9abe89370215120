"""Which generator is served: chosen at the start, and, where it is an alias of the registry, followed.

A `Served` never changes. The keeper puts another in its place; who took the former one goes on with it.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_generator, save_network
from cgan.project import EVALUATION, project_root
from cgan.quality.table import METRICS, floors
from cgan.registry.history import CHAMPION
from cgan.serving.class_names import names_in
from cgan.serving.generator import ALIASES, Generator, default_source
from cgan.store.address import BACKEND, STORE, is_absent, store_uri, without_credentials

if TYPE_CHECKING:
    from cgan.registry.client import Registry

log = logging.getLogger(__name__)

POLL_S = 2.0
RETRY_S = 30.0  # after a version that could not be loaded
COPIES = Path(".cgan/served")  # of what is served, for a start while the registry is away


@dataclass(frozen=True)
class Served:
    """A generator, what is known of it, and since when it is served (UTC)."""

    generator: Generator
    source: str
    registered: str | None = None  # the registered model's name
    version: int | None = None
    alias: str | None = None
    metrics: dict[str, float] | None = None
    real_images: dict[str, float] | None = None
    passport: dict[str, Any] | None = None
    kept: bool = False  # it is the copy on this disk, served because the registry cannot give it
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @cached_property
    def page(self) -> bytes:
        from cgan.page.assemble import play_page

        line = f'<p class="play-faint">Served: {html.escape(self.named)}.</p>'
        page = play_page(self.generator).replace("</main>", f"{line}\n</main>", 1)
        return page.encode(errors="replace")  # a name may hold a lone surrogate

    @property
    def digest(self) -> str:
        return str(self.generator.facts["digest"])

    @property
    def named(self) -> str:
        """In words, for the log."""
        if self.version is None:
            return f"{self.source} ({self.digest[:12]})"
        copy = ", the copy kept on this machine" if self.kept else ""
        return f"version {self.version} of `{self.registered}` ({self.digest[:12]}){copy}"

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
        facts = dict(self.generator.facts)
        return {
            **self.identity(),
            "classes": self.generator.classes,
            "class_names": names_in(facts, self.generator.classes),
            "shape": list(self.generator.shape),
            "metrics": self.metrics,
            "real_images": self.real_images,
            "passport": self.passport,
            "facts": facts,
        }


def of_file(generator: Generator, source: str) -> Served:
    """With its quality: what the file says of it, else the report of `evaluate` where that lies in the same
    project and is of this generator."""
    path = Path(source).absolute().parent.parent / EVALUATION
    try:
        if stated := generator.facts.get("quality"):
            metrics, reals = dict(stated["metrics"]), dict(stated["floors"])
            known = dict(stated["passport"])
            return Served(generator, source, metrics=metrics, real_images=reals, passport=known)
        report = dict(json.loads(path.read_text(encoding="utf-8")))
        if report["passport"]["generator_digest"] == generator.facts["digest"]:
            return Served(generator, source, **_quality(report))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return Served(generator, source)


def _quality(report: dict[str, Any]) -> dict[str, Any]:
    """Of a report on a generator: the metrics by their keys, what real images get, and the passport."""
    values = {key: metric.value(report) for key, metric in METRICS.items()}
    return {
        "metrics": {key: value for key, value in values.items() if value is not None},
        "real_images": floors(report),
        "passport": report.get("passport"),
    }


def fallback() -> Served:
    """What is served where no champion is: the project's generator, or the package's own."""
    source, _ = default_source()
    return of_file(Generator.load(source), source)


class Keeper:
    """Holds what is served. `asked`: a file, an MLflow URI, an alias, or None: the champion; `fallback`
    where the registry says that there is none, or where there is no registry.

    Each version that is taken over is copied to this disk. While the registry cannot be asked, a service that
    starts serves that copy. Without one it serves nothing (`current` is None) and asks again and again, as it
    does for an alias that no version has. Raises ModelError for a file or URI that has no usable generator.
    """

    def __init__(self, asked: str | None = None, poll_s: float = POLL_S) -> None:
        self.current: Served | None = None
        self.alias = CHAMPION if asked is None else asked if asked in ALIASES else None
        self.answers = False  # that the registry did when it was last asked
        self.problem: str | None = None  # what was wrong then, in words
        self._answered: float | None = None  # time.monotonic() of the registry's last answer
        self._failed: tuple[int, float, str] | None = None  # a version, when it did not load, why
        self._unmeasured = False  # that what is served may have metrics, which could not be read
        self._asked = asked
        self._poll_s = poll_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if self.alias and importlib.util.find_spec("mlflow") is None:
            if asked is not None:
                raise ModelError(
                    f"--model {asked}: is looked up in MLflow's registry, and MLflow is not installed. "
                    "Install `mlflow`, or give a file."
                )
            self.alias = None
        if self.alias is None:
            self.current = of_file(Generator.load(asked), asked) if asked else fallback()
        else:
            from cgan.registry.client import model_name

            self._model = model_name()
            copy = self._copy()
            self._expected = bool(asked or copy or _is_there_a_registry())
            self._look(copy)

    def follow(self) -> None:
        """Look at the registry from now on, if an alias is served."""
        if self.alias:
            self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread:
            self._thread.join(self._poll_s)  # a call to a server that is away may take longer

    def answer_age_s(self) -> float | None:
        """Seconds since the registry last answered; None if it never did, or is not asked."""
        return None if self._answered is None else time.monotonic() - self._answered

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_s):
            try:
                self._look()
            except ModelError as error:  # of the fallback
                self.problem = str(error)

    def _look(self, copy: Served | None = None) -> None:
        """Ask once; take over what is new. Whatever fails, what is served stays.

        `copy` is served if nothing is yet, and the registry cannot be asked or its version not loaded."""
        from cgan.registry.client import open_registry

        problem, answers, vacant = None, False, False
        try:
            with open_registry(self._model) as registry:
                number = registry.aliases().get(str(self.alias))
                self._answered, answers = time.monotonic(), True
                if number is None:
                    vacant = True
                    problem = f"`{self._model}` has no {self.alias} in {registry.shown}."
                elif not self.current or self.current.kept or number != self.current.version:
                    problem = self._take(registry, number)
                elif self._unmeasured:
                    problem = self._measure(registry, self.current)
        except CganError as error:
            problem = str(error)
        except Exception as error:  # the stores let through what their clients raise
            problem = f"the registry cannot be asked ({type(error).__name__})."
            log.exception("looking at the registry failed")
        if self.current is None:
            if self._asked is None and (vacant or not self._expected):
                self.current = fallback()
            elif not vacant:
                self.current = copy
        if problem != self.problem and not self._stopped.is_set():
            served = self.current.named if self.current else "nothing"
            if problem:
                expected = self._expected or self._answered is not None
                level = logging.WARNING if expected else logging.DEBUG
                log.log(level, "%s Served for now: %s.", problem, served)
            else:
                log.info("the registry's problem is over")
        self.answers, self.problem = answers, problem

    def _take(self, registry: Registry, number: int) -> str | None:
        """Serve a version from now on. Returns what is wrong, in words."""
        if self._failed:
            failed, when, words = self._failed
            if number == failed and time.monotonic() - when < RETRY_S:
                return words
        from cgan.registry.archive import generator_file, readable

        try:
            if self.current is None:  # at the start: one that was champion before will do
                taken, loaded = readable(registry, str(self.alias), load_generator)
            else:
                with generator_file(f"models:/{registry.model}/{number}") as path:
                    taken, loaded = number, load_generator(path)
            source = f"models:/{registry.model}/{taken}"
            quality, problem = _quality_of(registry, taken)
            generator = Generator(*loaded, source)
            new = Served(generator, source, registry.model, taken, self.alias, **quality)
        except ModelError as error:
            return self._not_loaded(registry, number, f": {error}")
        except Exception as error:  # such as no memory, or no disk
            log.exception("loading version %d failed", number)
            return self._not_loaded(registry, number, f" ({type(error).__name__}).")
        if taken == number:
            self._keep(new)
        before, self.current, self._unmeasured = self.current, new, problem is not None
        if before or self._thread:
            was = before.named if before else "nothing"
            log.info("served is now %s, before: %s", new.named, was)
        return problem if taken == number else self._not_loaded(registry, number, ".")

    def _measure(self, registry: Registry, served: Served) -> str | None:
        """Add the metrics that could not be read when the version was taken."""
        assert served.version is not None
        quality, problem = _quality_of(registry, served.version)
        if problem is None:
            self.current, self._unmeasured = replace(served, **quality), False
        return problem

    def _copy_path(self) -> Path:
        """Of this store, model and alias alone."""
        store = without_credentials(store_uri(project_root()))
        key = hashlib.sha256(f"{store} {self._model} {self.alias}".encode()).hexdigest()[:16]
        return project_root() / COPIES / f"{self._model}-{self.alias}-{key}.safetensors"

    def _keep(self, served: Served) -> None:
        facts = {**served.generator.facts, "registry_version": served.version}
        try:
            save_network(self._copy_path(), served.generator.network, facts)
        except OSError as error:
            log.warning(
                "no copy of what is served could be kept (%s). A service that starts while the registry is "
                "away will refuse to draw. Make room, or give write permission.",
                error,
            )

    def _copy(self) -> Served | None:
        """What was kept of the version that was served last."""
        try:
            path = self._copy_path()
            if not path.exists():
                return None
            network, facts = load_generator(path)
        except CganError as error:
            log.warning("the copy of what was served last: %s", error)
            return None
        number = int(facts.pop("registry_version"))
        generator = Generator(network, facts, path)
        return Served(generator, str(path), self._model, number, self.alias, kept=True)

    def _not_loaded(self, registry: Registry, number: int, why: str) -> str:
        words = f"the {self.alias}, version {number} of `{registry.model}`, cannot be loaded{why}"
        self._failed = number, time.monotonic(), words
        return words


def _is_there_a_registry() -> bool:
    """Is one named, or has the project its own? It may be away."""
    if any(os.environ.get(name, "").strip() for name in (STORE, BACKEND)):
        return True
    try:
        return not is_absent(store_uri(project_root()))
    except CganError:  # no store can be here, for its path
        return False


def _quality_of(registry: Registry, number: int) -> tuple[dict[str, Any], str | None]:
    """The quality of a version: of its report, else of its run. And why the report cannot be read."""
    from cgan.registry.archive import evaluation_of

    version, problem = registry.version(number), None
    try:
        if report := evaluation_of(version):
            return _quality(report), None
    except ModelError as error:
        problem = f"the metrics of version {number} of `{registry.model}`: {error}"
    measured, reals = registry.measured(version)
    metrics = {key: measured[f"quality/{key}"] for key in METRICS if f"quality/{key}" in measured}
    return {"metrics": metrics or None, "real_images": reals or None}, problem
