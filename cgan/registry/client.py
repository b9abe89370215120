"""Versions of the generator in MLflow's registry, and which of them is served.

The alias `champion` alone says which one is served, and one call sets it: a promotion has happened or it has
not. `previous` is derived from the history: before it sets the alias, a promotion writes down what it is
about to do, in a tag of its own at the registered model, so that two writers do not overwrite each other. An
entry whose alias call never came is skipped. See docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError, ModelError, TrackingError
from cgan.markdown import spaced
from cgan.project import GENERATOR, TRAIN_AGAIN, project_root
from cgan.registry.history import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    COMMIT,
    DATA,
    HISTORY,
    PREVIOUS,
    ROLLED_BACK,
    SUMMARY,
    Move,
    Version,
    lineage,
    model_page,
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
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
            found += list(page)
            token = page.token
            if not token:
                break
        aliases = self.aliases()
        versions = [
            Version(
                number=int(each.version),
                run_id=each.run_id or "",
                created_ms=int(each.creation_timestamp),
                tags=dict(each.tags),
                aliases=tuple(a for a in ALIASES if aliases.get(a) == int(each.version)),
            )
            for each in found
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
        found = self._registered()
        return {alias: int(number) for alias, number in found.aliases.items()} if found else {}

    def champion(self) -> int | None:
        return self.aliases().get(CHAMPION)

    def champion_version(self) -> Version | None:
        number = self.champion()
        return None if number is None else self.version(number)

    def history(self) -> list[Move]:
        """Oldest first, as written down; `lineage` tells which were carried out."""
        found = self._registered()
        moves = []
        for key, value in sorted(found.tags.items()) if found else []:
            if key.startswith(HISTORY):
                with contextlib.suppress(ValueError, TypeError):  # not ours
                    moves.append(Move(**json.loads(value)))
        return moves

    def register(self, run_id: str, tags: dict[str, str]) -> tuple[Version, bool]:
        """The version of the run's generator, and whether it is new. One run has one version.

        Raises ModelError when the run has no complete generator in the store.
        """
        import mlflow

        with self._locked():
            for version in self.versions():
                if version.run_id == run_id:
                    return version, False
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
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow tells it in its own words
                made = mlflow.register_model(f"models:/{newest.model_id}", self.model, tags=tags)
            number = int(made.version)
            self.client.set_registered_model_alias(self.model, CHALLENGER, str(number))
            return self.version(number), True

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def log_once(self, run_id: str, values: dict[str, float], step: int) -> None:
        """Log a run's metrics, except those whose last value at this step is the same.

        A judgement that is repeated, also after a kill, is so logged once. One with other numbers is
        logged after it, and MLflow shows the last.
        """
        from mlflow.entities import Metric

        def known(key: str) -> float | None:
            points = self.client.get_metric_history(run_id, key)
            there = [point for point in points if point.step == step]
            last = max(there, key=lambda point: point.timestamp, default=None)
            return last.value if last else None

        now_ms = time.time_ns() // 1_000_000
        new = {key: value for key, value in values.items() if known(key) != value}
        metrics = [Metric(key, value, now_ms, step) for key, value in new.items()]
        self.client.log_batch(run_id, metrics=metrics)

    def promote(
        self, number: int, *, instead_of: int | None, why: str, action: str = "promote"
    ) -> Move | None:
        """Make a version the champion, if `instead_of` is it still (None: there is none).

        Returns None when it is champion already. Raises PromotionConflictError when another promotion
        came first; then nothing is changed.
        """
        with self._locked():
            if self.champion() == number:
                return None
            self._require_champion(instead_of, number)
            return self._move(action, instead_of, number, why)

    def rollback(self, why: str) -> Move:
        """Bring back the champion before this one. Twice goes back twice; never to the one left.

        Raises ModelError when there is none before.
        """
        with self._locked():
            champion = self.champion()
            line = lineage(self.history(), champion)
            if champion is None or len(line) < 2:
                raise ModelError(
                    f"`{self.model}` has no champion before "
                    f"{'this one' if champion is None else f'version {champion}'} to go back to. "
                    "`cgan registry promote VERSION --why …` makes any version the champion."
                )
            return self._move("rollback", champion, line[-2], why)

    def _move(self, action: str, source: int | None, target: int, why: str) -> Move:
        # An argument's bytes that the locale cannot read are UTF-8, or nothing that a store takes.
        why = why.encode(errors="surrogateescape").decode(errors="replace")
        version = self.version(target)
        move = Move(
            action=action,
            source=source,
            target=target,
            when=now(),
            why=" ".join(why.split())[:MAX_WHY],
            user=user(),
            flow_run_id=run_context().get("prefect.flow_run_id", ""),
            commit=version.tags.get(COMMIT, ""),
            data_sha256=version.tags.get(DATA, ""),
        )
        # Later than all before, even if the clock was set back: this order is the history.
        key = f"{HISTORY}{max(time.time_ns(), self._last_key() + 1):020d}"
        self.client.set_registered_model_tag(self.model, key, json.dumps(asdict(move)))
        if action == "rollback" and source is not None:
            # Before the alias: after a kill in between, the next gate would promote it again.
            self.tag(source, {ROLLED_BACK: f"{move.when}: {move.why}"})
        self.client.set_registered_model_alias(self.model, CHAMPION, str(target))
        self._require_champion(target, target)
        self._update_what_follows()
        if action == "promote" and ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.model, str(target), ROLLED_BACK)
        return move

    def _last_key(self) -> int:
        found = self._registered()
        keys = [key.removeprefix(HISTORY) for key in found.tags if key.startswith(HISTORY)]
        return max((int(key) for key in keys if key.isdecimal()), default=0)

    def settle(self) -> None:
        """Finish what a promotion that was killed left open."""
        with self._locked():
            self._update_what_follows()

    def _update_what_follows(self) -> None:
        """What follows from the alias `champion`: `previous`, `challenger`, the model's page."""
        aliases, moves = self.aliases(), self.history()
        line = lineage(moves, aliases.get(CHAMPION))
        if len(line) > 1:
            self.client.set_registered_model_alias(self.model, PREVIOUS, str(line[-2]))
        elif PREVIOUS in aliases:
            self.client.delete_registered_model_alias(self.model, PREVIOUS)
        if aliases.get(CHALLENGER) == aliases.get(CHAMPION) is not None:
            self.client.delete_registered_model_alias(self.model, CHALLENGER)
        page = spaced(model_page(moves, line))
        self.client.update_registered_model(self.model, page)

    def _require_champion(self, expected: int | None, wanted: int) -> None:
        found = self.champion()
        if found != expected:
            raise PromotionConflictError(
                f"version {wanted} of `{self.model}` is not the champion: {CAME_FIRST}. "
                f"The champion is {_numbered(found)} now, and was {_numbered(expected)} when this was "
                "decided. Run `cgan gate` again, or look with `cgan registry list`."
            )

    def _registered(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

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


def model_name() -> str:
    """`gate.model` of params.yaml; outside a project `cgan`."""
    from cgan.params.reading import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else "cgan"


def promote_by_hand(registry: Registry, number: int, why: str, force: bool) -> Move:
    """Raises CganError for a version that is champion already, or not blessed unless `force`."""
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
    move = registry.promote(number, instead_of=champion, why=why)
    if move is None:
        raise ModelError(f"version {number} of `{registry.model}` is the champion already.")
    return move


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
