"""Versions of the generator in MLflow's registry, and which of them is served.

The alias `champion` alone says which one is served, and the call that sets it is the last of a promotion:
one that was killed before it has changed nothing that is read, and is done by running it again. A version's
tags say when, why and in whose place it became champion; they are read from the champion backwards. See
docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.errors import CganError, ModelError, TrackingError
from cgan.project import GENERATOR, TRAIN_AGAIN, project_root
from cgan.registry import history
from cgan.registry.history import CHAMPION, Version, lineage, now, numbered
from cgan.tracking.delivery import MODEL_NAME
from cgan.tracking.store import (
    LONG_ANSWER_S,
    SETTINGS,
    STORE,
    TIMEOUT,
    is_absent,
    reason_of,
    run_context,
    store_locked,
    store_uri,
    user,
    without_credentials,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

CAME_FIRST = "another promotion came first"
MODEL = "cgan"  # outside a project, and for questions about runs, which are of no registered model


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
                registered=f"{datetime.fromtimestamp(each.creation_timestamp / 1000, UTC):%Y-%m-%d %H:%M}",
                tags=dict(each.tags),
                aliases=tuple(a for a in history.ALIASES if aliases.get(a) == int(each.version)),
            )
            for each in self.client.search_model_versions(f"name = '{self.model}'")
        ]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        for found in self.versions():
            if found.number == number:
                return found
        raise ModelError(f"`{self.model}` has no version {number}: `cgan registry list`.")

    def aliases(self) -> dict[str, int]:
        found = self.client.search_registered_models(f"name = '{self.model}'")
        return {alias: int(number) for each in found for alias, number in each.aliases.items()}

    def champion(self) -> int | None:
        return self.aliases().get(CHAMPION)

    def champion_version(self) -> Version | None:
        return next((each for each in self.versions() if CHAMPION in each.aliases), None)

    def find(self, run_id: str, digest: str) -> Version | None:
        """The version of a run, or of equal weights that another run trained."""
        for version in self.versions():
            if version.run_id == run_id or version.tags.get(history.DIGEST) == digest:
                return version
        return None

    def register(self, run_id: str, tags: dict[str, str]) -> Version:
        """The version of the run's generator, made where there is none. Equal weights have one version.

        Raises ModelError when the run has no complete generator in the store.
        """
        import mlflow

        with store_locked():
            if known := self.find(run_id, tags[history.DIGEST]):
                return known
            run = self.client.get_run(run_id)
            made_by_it = f"source_run_id = '{run_id}' AND name = '{MODEL_NAME}'"
            found = self.client.search_logged_models([run.info.experiment_id], made_by_it)
            newest = next((model for model in found if model.status == "READY"), None)
            if newest is None:
                raise ModelError(
                    f"run {run_id} has no complete generator in {self.shown}: `cgan track flush`, then again."
                )
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow reports it in its own words
                address = f"models:/{newest.model_id}"
                made = mlflow.register_model(address, self.model, tags=tags).version
            self.client.update_registered_model(self.model, history.PAGE)
            self.client.set_registered_model_alias(self.model, history.CHALLENGER, str(made))
            return self.version(int(made))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def log_once(self, run_id: str, values: dict[str, float], step: int) -> None:
        """Log a run's metrics, except those that have this value at this step: a judgement that is
        repeated, also after a kill, is logged once."""
        for key, value in values.items():
            known = self.client.get_metric_history(run_id, key)
            if (step, value) not in [(point.step, point.value) for point in known]:
                self.client.log_metric(run_id, key, value, step=step)

    def promote(self, number: int, *, instead_of: int | None, why: str) -> None:
        """Make a version the champion, if `instead_of` is it still (None: there is none).

        Raises PromotionConflictError when another promotion came first; then nothing is changed.
        """
        with store_locked():
            champion = self.champion()
            if champion == number:
                return
            self.version(number)
            if champion != instead_of:
                raise PromotionConflictError(
                    f"version {number} of `{self.model}` is not the champion: {CAME_FIRST}. The champion "
                    f"is {numbered(champion)} now, and was {numbered(instead_of)}. Run `cgan gate` again."
                )
            self.client.delete_model_version_tag(self.model, str(number), history.ROLLED_BACK)
            self.tag(number, {history.INSTEAD_OF: str(champion or "none")})
            self._move(champion, number, champion, why)

    def rollback(self, why: str) -> tuple[int, int]:
        """Bring back the champion before this one: the numbers of both. Never to one that was left.

        Raises ModelError when there is none before.
        """
        with store_locked():
            champion = self.champion()
            line = lineage(self.versions(), champion)
            if champion is None or len(line) < 2:
                raise ModelError(
                    f"`{self.model}` has no champion to go back to (now: {numbered(champion)}). "
                    "`cgan registry promote VERSION --why …` makes any version the champion."
                )
            # So that the next gate doesn't promote it again.
            self.tag(champion, {history.ROLLED_BACK: f"{now()}: {_one_line(why)}"})
            why = f"brought back in place of version {champion}: {why}"
            self._move(champion, line[-2], line[-3] if len(line) > 2 else None, why)
            return line[-2], champion

    def _move(self, source: int | None, target: int, previous: int | None, why: str) -> None:
        flow = run_context().get("prefect.flow_run_id")
        who = f"{user()}, flow run {flow}" if flow else user()
        self.tag(target, {history.SINCE: now(), history.WHY: _one_line(why), history.WHO: who})
        if source is not None:
            self.tag(source, {history.UNTIL: now()})
        if previous is None:
            self.client.delete_registered_model_alias(self.model, history.PREVIOUS)
        else:
            self.client.set_registered_model_alias(self.model, history.PREVIOUS, str(previous))
        if self.aliases().get(history.CHALLENGER) == target:
            self.client.delete_registered_model_alias(self.model, history.CHALLENGER)
        self.client.set_registered_model_alias(self.model, CHAMPION, str(target))


def _one_line(why: str) -> str:
    """Bytes of an argument that the locale cannot read are UTF-8, or nothing a store takes."""
    text = why.encode(errors="surrogateescape").decode(errors="replace")
    return " ".join(text.split())[:500]


def model_name() -> str:
    """`gate.model` of params.yaml, where there is one."""
    from cgan.params.reading import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else MODEL


@contextlib.contextmanager
def open_registry(model: str = MODEL) -> Iterator[Registry]:
    """The project's registry, with MLflow set to its store: models:/ addresses heed the global setting only.

    Raises TrackingError when there is no store or it is away.
    """
    uri = store_uri(project_root())
    shown = without_credentials(uri)
    if is_absent(uri):
        raise TrackingError(
            f"there is no MLflow store {shown}. Train first (`dvc repro`), or set MLFLOW_TRACKING_URI if the "
            f"store is another. If {GENERATOR} came from elsewhere (`dvc pull`) or the store was lost, train "
            f"again: {TRAIN_AGAIN}."
        )
    for name, value in {**SETTINGS, TIMEOUT: str(LONG_ANSWER_S)}.items():
        os.environ.setdefault(name, value)
    given = os.environ.pop(STORE, None)  # what MLflow is set to besides is somebody else's
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of a damaged or locked file, let through

    # Downloads, and tracebacks of what we say in words.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    before = mlflow.get_tracking_uri() if is_set else None
    mlflow.set_tracking_uri(uri)
    try:
        yield Registry(model, uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise TrackingError(
            f"the MLflow store {shown} cannot be used: {reason_of(error)}. "
            "Try again when it answers, or set MLFLOW_TRACKING_URI to another."
        ) from None
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        os.environ.pop(STORE, None)  # MLflow writes the address that it is set to there too
        if given is not None:
            os.environ[STORE] = given
