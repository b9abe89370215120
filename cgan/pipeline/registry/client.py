"""MLflow's registry: its versions of the generator, and which of them is served.

The alias `champion` alone says which one is served; the call that sets it is the last of a promotion. See
docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.base.errors import CganError, ModelError, TrackingError
from cgan.base.hosts import without_credentials
from cgan.pipeline.project import TRAIN_AGAIN, project_root
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.run import model_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_MODEL = "cgan"  # outside a project, and for questions about runs, which are of no model
CHAMPION, CHALLENGER = "champion", "challenger"  # aliases
GATE_FOLDER = "gate"  # of a run's artifacts: reports, and what is kept to compare later data with

# Tags of a version: what it is, and how the gate judged it.
DIGEST, RUN_NAME = "generator.digest", "run.name"
VERDICT, SUMMARY = "gate.verdict", "gate.summary"
# Of one that became champion: since when, why, by whom; the number of the champion before; and that of the
# last champion, itself or one before, whose data a person accepted.
CHAMPION_SINCE, PROMOTION_REASON = "champion.since", "champion.why"
PROMOTED_BY, PREVIOUS_CHAMPION = "champion.who", "champion.instead_of"
ACCEPTED_DATA = "champion.anchor"  # the name in existing stores
ACCEPTED_WHY = "champion.anchor.why"
# Of one that a rollback left: when and why.
ROLLED_BACK = "registry.rolled_back"


@dataclass(frozen=True)
class Version:
    """A model version: one trained generator."""

    number: int
    run_id: str
    tags: dict[str, str]

    @property
    def verdict(self) -> str:
        return self.tags.get(VERDICT, "not judged")

    @property
    def accepted_version(self) -> int:
        """The number of the version whose data a person accepted last; its own where none is named, as when
        somebody made it champion in MLflow."""
        return int(self.tags.get(ACCEPTED_DATA, self.number))

    @property
    def champion_line(self) -> str:
        """Since when, why and by whom it is or was champion, in a line."""
        if CHAMPION_SINCE not in self.tags:
            return f"version {self.number}, made champion by hand in MLflow"
        tags = (CHAMPION_SINCE, PROMOTED_BY, PROMOTION_REASON)
        since, who, why = (self.tags[tag] for tag in tags)
        return f"version {self.number}, since {since}, by {who}: {why}"


@dataclass(frozen=True)
class Registry:
    """The registered model `model` in the project's store; made by `open_registry`. `address`: the store's,
    as it may be shown."""

    model: str
    client: MlflowClient
    address: str

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        entities = self.client.search_model_versions(f"name = '{self.model}'")
        versions = [Version(int(v.version), v.run_id or "", dict(v.tags)) for v in entities]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        """The version of this number. Raises ModelError where there is none."""
        found = [version for version in self.versions() if version.number == number]
        if not found:
            raise ModelError(f"`{self.model}` has no version {number}. See `cgan registry list`.")
        return found[0]

    def find_version(self, run_id: str, digest: str) -> Version | None:
        """The version of a run, or of equal weights that another run trained."""
        for version in self.versions():
            if run_id == version.run_id or digest == version.tags.get(DIGEST):
                return version
        return None

    def aliases(self) -> dict[str, int]:
        models = self.client.search_registered_models(f"name = '{self.model}'")
        return {alias: int(number) for model in models for alias, number in model.aliases.items()}

    def champion(self) -> Version | None:
        number = self.aliases().get(CHAMPION)
        return None if number is None else self.version(number)

    def newest_run(self, experiment: str, wanted: str) -> Run | None:
        """The newest run of an experiment that MLflow's filter finds."""
        found = self.client.get_experiment_by_name(experiment)
        places = [found.experiment_id] if found else []
        return next(iter(self.client.search_runs(places, wanted, max_results=1)), None)

    def register(self, run: Run, digest: str) -> Version:
        """The version of the run's generator, made where there is none. Equal weights have one version.
        Raises ModelError where the run has no complete generator in the store."""
        import mlflow

        with store.store_locked():
            if version := self.find_version(run.info.run_id, digest):
                return version
            model = model_of(self.client, run)
            if model is None or model.status != "READY":
                raise ModelError(
                    f"run {run.info.run_id} has no complete generator in {self.address}. Run `dvc repro "
                    "--force --single-item record`, then `cgan gate` again."
                )
            tags = {DIGEST: digest, RUN_NAME: str(run.info.run_name)}
            uri = f"models:/{model.model_id}"
            number = mlflow.register_model(uri, self.model, tags=tags).version
            self.client.set_registered_model_alias(self.model, CHALLENGER, str(number))
            return self.version(int(number))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def promote(self, number: int, *, why: str, by_person: bool = False) -> None:
        """Make a version the champion. A person accepts its data, too: later data are compared with these."""
        with store.store_locked():
            champion = self.champion()
            if champion and champion.number == number:
                return
            accepted = champion.accepted_version if champion and not by_person else number
            self.client.delete_model_version_tag(self.model, str(number), ROLLED_BACK)
            previous = str(champion.number) if champion else "none"
            self.tag(number, {PREVIOUS_CHAMPION: previous, ACCEPTED_DATA: str(accepted)})
            self._set_champion(number, why)

    def rollback(self, why: str) -> tuple[int, int]:
        """Bring back the last champion that was not rolled back → its number, and that of the one that it
        replaces. Raises ModelError where there is none."""
        with store.store_locked():
            champion = self.aliases().get(CHAMPION)
            former = former_champion(self.versions(), champion)
            if champion is None or former is None:
                raise ModelError(
                    f"`{self.model}` has no champion to go back to. `cgan registry promote VERSION --why …` "
                    "makes any version the champion."
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

    @contextlib.contextmanager
    def downloaded(self, uri: str) -> Iterator[Path]:
        """A local copy of a file or folder of the store. Raises ModelError where the store cannot give it,
        or where what is done with the copy raises CganError."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            try:
                path = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
            except Exception as error:  # the stores let through what their clients raise
                reason = store.reason_of(error)
                raise ModelError(
                    f"{uri}: cannot be loaded from the MLflow store {self.address} ({reason})."
                ) from None
            try:
                yield path
            except CganError as error:
                raise ModelError(str(error).replace(str(path), uri)) from None


def former_champion(versions: Sequence[Version], champion: int | None) -> int | None:
    """The champion before this one, as each names the one before it, without those that were rolled back."""
    unvisited = {version.number: version for version in versions}
    number = champion
    while number in unvisited:
        version = unvisited.pop(number)  # so that two which name each other do not go on for ever
        if number != champion and ROLLED_BACK not in version.tags:
            return number
        previous = version.tags.get(PREVIOUS_CHAMPION, "none")
        number = None if previous == "none" else int(previous)
    return None


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def model_name() -> str:
    """`gate.model` of params.yaml, where there is one."""
    from cgan.pipeline.params_file import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else DEFAULT_MODEL


@contextlib.contextmanager
def open_registry(model: str = DEFAULT_MODEL) -> Iterator[Registry]:
    """The project's registry, with MLflow set to its store: models:/ addresses heed the global setting only.
    Raises TrackingError where there is no store or it is away."""
    uri = store.store_uri(project_root())
    address = without_credentials(uri)
    if store.is_absent(uri):
        raise TrackingError(
            f"there is no MLflow store {address}. Train first (`dvc repro`, or after `dvc pull` "
            f"{TRAIN_AGAIN}), or set MLFLOW_TRACKING_URI if the runs are elsewhere."
        )
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of a damaged or locked file, let through

    previous = os.environ.get(store.STORE_VARIABLE)
    mlflow.set_tracking_uri(uri)  # which sets the variable too
    try:
        yield Registry(model, store.open_store(uri), address)
    except (ModuleNotFoundError, MlflowException, SQLAlchemyError) as error:  # no driver
        raise TrackingError(f"{store.failure_in_words(uri, error)}.") from None
    finally:
        if previous != uri:  # else another, perhaps on another thread, set it and goes on
            mlflow.set_tracking_uri(previous)  # type: ignore[arg-type]
