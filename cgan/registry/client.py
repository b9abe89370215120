"""Versions of the generator in MLflow's registry, and which of them is served.

The alias `champion` alone says which one is served, and one call sets it: a promotion has happened or it has
not. A version's tags say when, why and in whose place it became champion; they are written before the alias
moves, and read from the champion backwards, so that a promotion which was killed in between leaves no
trace. See docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.errors import CganError, ModelError, TrackingError
from cgan.project import GENERATOR, TRAIN_AGAIN, project_root
from cgan.registry.history import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    DIGEST,
    INSTEAD_OF,
    PAGE,
    PREVIOUS,
    ROLLED_BACK,
    SINCE,
    SUMMARY,
    UNTIL,
    WHO,
    WHY,
    Version,
    lineage,
    now,
)
from cgan.run.delivery import MODEL_NAME
from cgan.run.lifecycle import run_context, user
from cgan.store.address import (
    SQLITE,
    STORE,
    client_settings,
    environment_set,
    is_absent,
    reason_of,
    store_uri,
    without_credentials,
)
from cgan.store.database import require_database
from cgan.store.pages import real_images

if TYPE_CHECKING:
    from mlflow import MlflowClient


MAX_WHY = 500
CAME_FIRST = "another promotion came first"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class PromotionConflictError(CganError):
    """Another promotion came first."""


class Registry:
    """The registered model `model` in the project's store; made by `open_registry`."""

    def __init__(self, model: str, uri: str) -> None:
        from mlflow import MlflowClient

        self.model, self.uri = model, uri
        self.shown = without_credentials(uri)
        self.client: MlflowClient = MlflowClient(uri)

    def versions(self) -> list[Version]:
        """Newest first."""
        aliases = self.aliases()
        versions = [
            Version(
                number=int(each.version),
                run_id=each.run_id or "",
                created_ms=int(each.creation_timestamp),
                tags=dict(each.tags),
                aliases=tuple(a for a in ALIASES if aliases.get(a) == int(each.version)),
            )
            for each in self.client.search_model_versions(f"name = '{self.model}'")
        ]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        found = next((each for each in self.versions() if each.number == number), None)
        if found is None:
            raise ModelError(
                f"`{self.model}` has no version {number}. `cgan registry list` shows which there are."
            )
        return found

    def measured(self, version: Version) -> tuple[dict[str, float], dict[str, float]]:
        """The metrics of the version's run, and what real images get; none if the run is gone."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(version.run_id).data
        except MlflowException:
            return {}, {}
        return dict(run.metrics), real_images(run.tags)

    def aliases(self) -> dict[str, int]:
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_registered_model(self.model).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(number) for alias, number in found.items()}

    def champion(self) -> int | None:
        return self.aliases().get(CHAMPION)

    def champion_version(self) -> Version | None:
        number = self.champion()
        return None if number is None else self.version(number)

    def find(self, run_id: str, digest: str) -> Version | None:
        """The version of a run, or of equal weights that another run trained."""
        versions = self.versions()
        same = [each for each in versions if each.run_id == run_id]
        same += [each for each in versions if each.tags.get(DIGEST) == digest]
        return same[0] if same else None

    def register(self, run_id: str, tags: dict[str, str]) -> Version:
        """The version of the run's generator, made where there is none. Equal weights have one version.

        Raises ModelError when the run has no complete generator in the store.
        """
        import mlflow

        with self._locked():
            if known := self.find(run_id, tags[DIGEST]):
                return known
            run = self.client.get_run(run_id)
            models = [
                model
                for model in self.client.search_logged_models(
                    [run.info.experiment_id], f"source_run_id = '{run_id}'"
                )
                if model.name == MODEL_NAME and model.status == "READY"
            ]
            if not models:
                raise ModelError(
                    f"run {run_id} has no complete generator in {self.shown}. "
                    "Deliver its records with `cgan track flush`, then try again."
                )
            newest = max(models, key=lambda model: model.creation_timestamp)
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow reports it in its own words
                made = mlflow.register_model(f"models:/{newest.model_id}", self.model, tags=tags)
            self.client.update_registered_model(self.model, PAGE)
            self.client.set_registered_model_alias(self.model, CHALLENGER, str(made.version))
            return self.version(int(made.version))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def log_once(self, run_id: str, values: dict[str, float], step: int) -> None:
        """Log a run's metrics, except those that have this value at this step: a judgement that is
        repeated, also after a kill, is logged once."""
        from mlflow.entities import Metric

        def is_known(key: str, value: float) -> bool:
            history = self.client.get_metric_history(run_id, key)
            return any((point.step, point.value) == (step, value) for point in history)

        now_ms = time.time_ns() // 1_000_000
        new = [item for item in values.items() if not is_known(*item)]
        self.client.log_batch(run_id, [Metric(*item, now_ms, step) for item in new])

    def promote(self, number: int, *, instead_of: int | None, why: str) -> bool:
        """Make a version the champion, if `instead_of` is it still (None: there is none).

        Returns False when it is champion already. Raises PromotionConflictError when another promotion
        came first; then nothing is changed.
        """
        with self._locked():
            if self.champion() == number:
                return False
            self._require_champion(instead_of, number)
            version = self.version(number)
            self.tag(number, {INSTEAD_OF: str(instead_of or "none")})
            if ROLLED_BACK in version.tags:
                self.client.delete_model_version_tag(self.model, str(number), ROLLED_BACK)
            self._move(instead_of, number, why)
            return True

    def rollback(self, why: str) -> tuple[int, int]:
        """Bring back the champion before this one: the numbers of both. Never to one that was left.

        Raises ModelError when there is none before.
        """
        with self._locked():
            champion = self.champion()
            line = lineage(self.versions(), champion)
            if champion is None or len(line) < 2:
                raise ModelError(
                    f"`{self.model}` has no champion before "
                    f"{'this one' if champion is None else f'version {champion}'} to go back to. "
                    "`cgan registry promote VERSION --why …` makes any version the champion."
                )
            # Before the alias: after a kill in between, the next gate would promote it again.
            self.tag(champion, {ROLLED_BACK: f"{now()}: {_plain(why)}"})
            why = f"brought back in place of version {champion}: {why}"
            self._move(champion, line[-2], why)
            return line[-2], champion

    def _move(self, source: int | None, target: int, why: str) -> None:
        flow = run_context().get("prefect.flow_run_id")
        who = f"{user()}, flow run {flow}" if flow else user()
        self.tag(target, {SINCE: now(), WHY: _plain(why), WHO: who})
        self.client.set_registered_model_alias(self.model, CHAMPION, str(target))
        self._require_champion(target, target)
        if source is not None:
            self.tag(source, {UNTIL: now()})
        self._update_aliases()

    def settle(self) -> None:
        """Finish what a promotion that was killed left open."""
        with self._locked():
            self._update_aliases()

    def _update_aliases(self) -> None:
        """The aliases that follow from `champion`."""
        aliases = self.aliases()
        line = lineage(self.versions(), aliases.get(CHAMPION))
        if len(line) > 1:
            self.client.set_registered_model_alias(self.model, PREVIOUS, str(line[-2]))
        elif PREVIOUS in aliases:
            self.client.delete_registered_model_alias(self.model, PREVIOUS)
        if aliases.get(CHALLENGER) == aliases.get(CHAMPION) is not None:
            self.client.delete_registered_model_alias(self.model, CHALLENGER)

    def _require_champion(self, expected: int | None, wanted: int) -> None:
        found = self.champion()
        if found != expected:
            raise PromotionConflictError(
                f"version {wanted} of `{self.model}` is not the champion: {CAME_FIRST}. "
                f"The champion is {_numbered(found)} now, and was {_numbered(expected)} when this was "
                "decided. Run `cgan gate` again, or look with `cgan registry list`."
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One promotion at a time on this machine. Another machine's is found by `_require_champion`."""
        name = hashlib.sha256(f"{os.getuid()} {self.uri}".encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"cgan-registry-{name}.lock"
        if self.uri.startswith(SQLITE):
            path = Path(self.uri.removeprefix(SQLITE) + ".registry-lock")
        with path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _plain(why: str) -> str:
    """On one line; bytes of an argument that the locale cannot read are UTF-8, or nothing a store takes."""
    text = why.encode(errors="surrogateescape").decode(errors="replace")
    return " ".join(text.split())[:MAX_WHY]


def model_name() -> str:
    """`gate.model` of params.yaml; outside a project `cgan`."""
    from cgan.params.reading import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else "cgan"


def promote_by_hand(registry: Registry, number: int, why: str, force: bool) -> str:
    """What happened, in words. Raises CganError for the champion, or one not blessed unless `force`."""
    version, champion = registry.version(number), registry.champion()
    if not why.strip():
        raise CganError("--why: say in a few words why; the history keeps it.")
    blessed = version.verdict in ("passed", "promoted") or number == champion
    if not blessed and not force:
        state = version.tags.get(SUMMARY) or "`cgan gate` has not judged it."
        raise ModelError(
            f"version {number} of `{registry.model}` has not passed the gate: {state} "
            "`--force` promotes it all the same."
        )
    if not registry.promote(number, instead_of=champion, why=why):
        raise ModelError(f"version {number} of `{registry.model}` is the champion already.")
    return f"Version {number} is champion in place of {_numbered(champion)}: {_plain(why)}"


def _numbered(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


@contextlib.contextmanager
def open_registry(model: str) -> Iterator[Registry]:
    """The project's registry. Raises TrackingError when there is no store or it is away."""
    uri = store_uri(project_root())
    shown = without_credentials(uri)
    if is_absent(uri):
        raise TrackingError(
            f"there is no MLflow store {shown}, which would know the training of {GENERATOR}. Train first "
            f"(`dvc repro`), or set MLFLOW_TRACKING_URI if the store is another. If {GENERATOR} came from "
            f"elsewhere (`dvc pull`) or the store was lost, train again: {TRAIN_AGAIN}."
        )
    if not NAME.fullmatch(model):
        raise ModelError(f"{model[:100]!r} is no model's name: letters, digits, `.`, `_` and `-`.")
    with mlflow_set_to(uri):
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError  # of a damaged or locked file, let through

        try:
            yield Registry(model, uri)
        except (MlflowException, SQLAlchemyError) as error:
            advice = "Try again when it answers, or set MLFLOW_TRACKING_URI to another."
            raise TrackingError(
                f"the MLflow store {shown} cannot be used: {reason_of(error)}. {advice}"
            ) from None


@contextlib.contextmanager
def mlflow_set_to(uri: str) -> Iterator[None]:
    """MLflow set to a store, without long waits; models:/ addresses heed the global setting only.

    Raises TrackingError for a database that is away."""
    require_database(uri)
    added: dict[str, str | None] = {
        name: value
        for name, value in client_settings().items()
        if name.startswith("MLFLOW_") and name not in os.environ
    }
    # MLflow writes the address that it is told into the environment too.
    with environment_set({**added, STORE: os.environ.get(STORE)}):
        import mlflow

        # Downloads, and tracebacks of what we say in words.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
        before = mlflow.get_tracking_uri() if is_set else None
        mlflow.set_tracking_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
