"""Which generator is served: chosen at the start, and, where it is an alias of the registry, followed. A
request goes on with the one with which it began."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from cgan.base.errors import CganError, ModelError
from cgan.drawing.generator import ALIASES, Generator, default_source
from cgan.pipeline.project import GENERATOR, project_root
from cgan.pipeline.registry.client import CHAMPION, model_name, now, open_registry
from cgan.pipeline.registry.runs import known_evaluation
from cgan.pipeline.tracking.store import is_absent, store_uri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedGenerator:
    """A generator, what is known of it, and since when it is served (UTC)."""

    generator: Generator
    version: int | None = None  # of the registered model
    quality: str = ""
    since: str = field(default_factory=now)

    @classmethod
    def load(cls, source: str, version: int | None = None) -> ServedGenerator:
        """The generator of a source. Raises ModelError where there is no usable one."""
        generator = Generator.load(source)
        evaluation = known_evaluation(generator)
        return cls(generator, version, evaluation.report().sentence if evaluation else "")

    @cached_property
    def page(self) -> str:
        from cgan.page.assemble import play_page

        return play_page(self.generator, self.quality, self.description)

    @property
    def digest(self) -> str:
        return str(self.generator.facts["digest"])

    @property
    def description(self) -> str:
        return f"{self.generator.source} ({self.digest[:12]})"

    @property
    def headers(self) -> dict[str, str]:
        version = {"Cgan-Model-Version": str(self.version)} if self.version else {}
        return {"Cgan-Model-Digest": self.digest, **version}

    @property
    def facts(self) -> dict[str, Any]:
        """What /healthz and /draw say of it."""
        return {
            "digest": self.digest,
            "version": self.version,
            "source": self.generator.source,
            "since": self.since,
            "quality": self.quality or None,
            "caution": self.generator.model.kind.caution or None,
        }


class GeneratorProvider:
    """Holds what is served. `model`: a file, an MLflow URI, an alias, or None: the champion; the project's
    generator or the package's own where the registry says that there is none, or where there is no registry.

    `poll` follows an alias. Until the registry has answered, nothing is served (`current` is None). Raises
    ModelError for a file or URI that has no usable generator.
    """

    def __init__(self, model: str | None = None) -> None:
        self.current: ServedGenerator | None = None
        self.problem = ""  # with the registry, when it was last asked
        self.alias = model if model in ALIASES else None
        self._has_default = model is None
        if model is None and find_spec("mlflow") and not is_absent(store_uri(project_root())):
            self.alias = CHAMPION
        if self.alias:
            import mlflow  # noqa: F401 - where it is absent, the command says which extra brings it
        else:
            self.current = ServedGenerator.load(model or default_source(GENERATOR)[0])

    def poll(self) -> None:
        """Ask the registry once, and take the version that has the alias. What is served stays when that
        fails, and `problem` says why."""
        if not self.alias:
            return
        problem = ""
        try:
            self._follow(self.alias)
        except CganError as error:
            problem = str(error)
        except Exception as error:  # such as no memory, no disk, or what a store lets through
            problem = f"looking at the registry failed ({type(error).__name__}: {error})."
        if problem and problem != self.problem:
            served = self.current.description if self.current else "nothing"
            log.warning("%s Served for now: %s.", problem, served)
        self.problem = problem

    def _follow(self, alias: str) -> None:
        with open_registry(model_name()) as registry:
            number = registry.aliases().get(alias)
            if number is None:
                if self.current is None and self._has_default:
                    self.current = ServedGenerator.load(default_source(GENERATOR)[0])
                raise ModelError(f"`{registry.model}` has no {alias} in {registry.address}.")
            if self.current is None or number != self.current.version:
                self.current = ServedGenerator.load(f"models:/{registry.model}/{number}", number)
                log.info("served is now %s", self.current.description)
