"""MLflow's registry: its versions of the generator, their files, and which of them is served.

The alias `champion` alone says which one is served, and the call that sets it is the last of a promotion:
one that was killed before it has changed nothing that is read, and is done by running it again. A version's
tags say since when, why and in whose place it became champion; `rollback` reads them backwards.
See docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.errors import CganError, ModelError, TrackingError
from cgan.hosts import without_credentials
from cgan.pipeline.registry.version import (
    ACCEPTED_DATA,
    CHAMPION_SINCE,
    DIGEST,
    PREVIOUS_CHAMPION,
    PROMOTED_BY,
    PROMOTION_REASON,
    ROLLED_BACK,
    RUN_NAME,
    Version,
    former_champion,
    version_in_words,
)
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.run import model_of
from cgan.project import EVALUATION, GENERATOR, TRAIN_AGAIN, project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from cgan.evaluation import Evaluation

DEFAULT_MODEL = "cgan"  # outside a project, and for questions about runs, which are of no model
CHAMPION, CHALLENGER = "champion", "challenger"  # aliases
GATE_FOLDER = "gate"  # of a run's artifacts: reports, and what is kept to compare later data with


class Registry:
    """The registered model `model` in the project's store; made by `open_registry`. `address`: the store's,
    as it may be shown."""

    def __init__(self, model: str, client: MlflowClient, address: str) -> None:
        self.model, self.client, self.address = model, client, address

    def versions(self) -> list[Version]:
        """Newest first."""
        entities = self.client.search_model_versions(f"name = '{self.model}'")
        versions = [Version(int(v.version), v.run_id or "", dict(v.tags)) for v in entities]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        for version in self.versions():
            if version.number == number:
                return version
        raise ModelError(f"`{self.model}` has no version {number}. See `cgan registry list`.")

    def aliases(self) -> dict[str, int]:
        models = self.client.search_registered_models(f"name = '{self.model}'")
        return {alias: int(number) for model in models for alias, number in model.aliases.items()}

    def champion_number(self) -> int | None:
        return self.aliases().get(CHAMPION)

    def find(self, run_id: str, digest: str) -> Version | None:
        """The version of a run, or of equal weights that another run trained."""
        for version in self.versions():
            if run_id == version.run_id or digest == version.tags.get(DIGEST):
                return version
        return None

    def register(self, run: Run, digest: str) -> Version:
        """The version of the run's generator, made where there is none. Equal weights have one version.

        Raises ModelError when the run has no complete generator in the store.
        """
        import mlflow

        with store.store_locked():
            if version := self.find(run.info.run_id, digest):
                return version
            model = model_of(self.client, run)
            if model is None or model.status != "READY":
                raise ModelError(
                    f"run {run.info.run_id} has no complete generator in {self.address}. Record it with `dvc "
                    "repro` (if nothing is stale, with `dvc repro --force --single-item record`), then run "
                    "`cgan gate` again."
                )
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow reports it in its own words
                uri = f"models:/{model.model_id}"
                tags = {DIGEST: digest, RUN_NAME: str(run.info.run_name)}
                number = mlflow.register_model(uri, self.model, tags=tags).version
            self.client.set_registered_model_alias(self.model, CHALLENGER, str(number))
            return self.version(int(number))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def promote(
        self, number: int, *, previous: int | None, why: str, by_person: bool = False
    ) -> None:
        """Make a version the champion, if `previous` is it still (None: there is none). A person accepts
        its data, too: from then on data are compared with these.

        Raises ModelError when another promotion came first; then nothing is changed.
        """
        with store.store_locked():
            champion = self.champion_number()
            if champion == number:
                return
            self.version(number)
            if champion != previous:
                raise ModelError(
                    f"version {number} of `{self.model}` was not promoted, because another promotion came "
                    f"first (champion before: {version_in_words(previous)}, now: "
                    f"{version_in_words(champion)}). Run the command again."
                )
            accepted = number
            if champion is not None and not by_person:
                accepted = self.version(champion).accepted_data
            self.client.delete_model_version_tag(self.model, str(number), ROLLED_BACK)
            tags = {PREVIOUS_CHAMPION: str(champion or "none"), ACCEPTED_DATA: str(accepted)}
            self.tag(number, tags)
            self._set_champion(number, why)

    def accept_data(self, number: int) -> None:
        """Accept, as a person, the data of a champion: later data are compared with them."""
        self.tag(number, {ACCEPTED_DATA: str(number)})

    def rollback(self, why: str) -> tuple[int, int]:
        """Bring back the champion before this one: the numbers of both. Never to one that was left.

        Raises ModelError when there is none before.
        """
        with store.store_locked():
            champion = self.champion_number()
            former = former_champion(self.versions(), champion)
            if champion is None or former is None:
                raise ModelError(
                    f"`{self.model}` has no champion to go back to (now: {version_in_words(champion)}). "
                    "`cgan registry promote VERSION --why …` makes any version the champion."
                )
            # So that the next gate doesn't promote it again.
            self.tag(champion, {ROLLED_BACK: f"{now()}: {why}"})
            self._set_champion(former, f"brought back in place of version {champion}: {why}")
            return former, champion

    def _set_champion(self, number: int, why: str) -> None:
        requester = store.requester_tags()
        names = (requester.get("mlflow.user"), requester.get("prefect.flow_run_id"))
        who = ", flow run ".join(filter(None, names))
        self.tag(number, {CHAMPION_SINCE: now(), PROMOTION_REASON: why, PROMOTED_BY: who})
        if self.aliases().get(CHALLENGER) == number:
            self.client.delete_registered_model_alias(self.model, CHALLENGER)
        self.client.set_registered_model_alias(self.model, CHAMPION, str(number))


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def model_name() -> str:
    """`gate.model` of params.yaml, where there is one."""
    from cgan.pipeline.params_file import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else DEFAULT_MODEL


@contextlib.contextmanager
def open_registry(model: str = DEFAULT_MODEL) -> Iterator[Registry]:
    """The project's registry, with MLflow set to its store: models:/ addresses heed the global setting only.

    Raises TrackingError when there is no store or it is away.
    """
    uri = store.store_uri(project_root())
    address = without_credentials(uri)
    if store.is_absent(uri):
        raise TrackingError(
            f"there is no MLflow store {address}. Train first (`dvc repro`), or set MLFLOW_TRACKING_URI if "
            f"the runs are elsewhere. If {GENERATOR} came from elsewhere (`dvc pull`) or the store was lost, "
            f"train again: {TRAIN_AGAIN}."
        )
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of a damaged or locked file, let through

    previous = os.environ.get(store.STORE_VARIABLE)
    mlflow.set_tracking_uri(uri)  # which sets the variable too
    try:
        yield Registry(model, store.open_store(uri), address)
    except (ModuleNotFoundError, MlflowException, SQLAlchemyError) as error:  # no driver
        raise TrackingError(
            f"the MLflow store {address} cannot be used for that: {store.reason_of(error).rstrip('.')}. Try "
            "again when it answers, or set MLFLOW_TRACKING_URI to another store."
        ) from None
    finally:
        if previous != uri:  # else another, perhaps on another thread, set it and goes on
            mlflow.set_tracking_uri(previous)  # type: ignore[arg-type]


# -- Files ---------------------------------------------------------------------------------------------


def model_uri(alias: str) -> str:
    """The MLflow URI of the version of the project's model that is champion or challenger. Raises ModelError
    where there is none."""
    with open_registry(model_name()) as registry:
        number = registry.aliases().get(alias)
        if number is None:
            raise ModelError(
                f"`{registry.model}` has no {alias} in {registry.address}. `cgan registry list` shows its "
                "versions; `cgan gate` makes the first champion."
            )
        return f"models:/{registry.model}/{number}"


@contextlib.contextmanager
def generator_file(uri: str) -> Iterator[Path]:
    """A local copy, while the context lasts, of the generator that an MLflow URI leads to.

    `runs:/<run id>/generator`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact's URI.
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store cannot give it.
    """
    advice = (
        "Expected `runs:/ID/generator` or `models:/NAME@ALIAS` of the store at MLFLOW_TRACKING_URI."
    )
    with open_registry() as registry, downloaded(registry, uri, advice) as path:
        files = [path] if path.is_file() else sorted(path.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: contains no generator.safetensors. {advice}")
        try:
            yield files[0]
        except ModelError as error:  # about the copy
            raise ModelError(str(error).replace(str(path), uri)) from None


@contextlib.contextmanager
def downloaded(registry: Registry, uri: str, advice: str) -> Iterator[Path]:
    """A local copy of a file or folder of the store."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        try:
            path = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:  # the stores let through what their clients raise
            reason = store.reason_of(error)
            raise ModelError(
                f"{uri}: cannot be loaded from the MLflow store {registry.address} ({reason}). {advice}"
            ) from None
        yield path


def evaluation_of(registry: Registry, run_id: str) -> Evaluation | None:
    """The evaluation of the generator that a run trained; None where the run has none, or one that cannot be
    read."""
    from cgan.evaluation import Evaluation

    address = f"runs:/{run_id}/{EVALUATION}"
    with contextlib.suppress(CganError), downloaded(registry, address, "") as path:
        return Evaluation.read(path)
    return None
