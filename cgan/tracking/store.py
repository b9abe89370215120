"""Which MLflow store the runs go to: its address, its experiment, how a client asks it.

A store is what MLFLOW_TRACKING_URI names, a server or a database, else sqlite in the project.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cgan.errors import TrackingError
from cgan.files import locked, replacing
from cgan.project import home
from cgan.tracking.pages import EXPERIMENT_TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE = "MLFLOW_TRACKING_URI"
BACKEND = "MLFLOW_BACKEND_STORE_URI"  # of MLflow's server: what it keeps the runs in
TIMEOUT, TIMEOUT_S = "MLFLOW_HTTP_REQUEST_TIMEOUT", 10
SQLITE = "sqlite:///"
# Settings of MLflow that would send our records to somebody else's run.
FOREIGN_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME")

USER = re.compile(r"([\w+.-]+://)?+([^:/@?#]*)(:.*)?@")  # a password ends at the last @
SECRET_QUERY = re.compile(
    r"(?<=[?&])[^=&]*(passw|pwd|secret|token|key)[^=&]*=[^&]*&?", re.IGNORECASE
)


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else sqlite in the project's root. A relative sqlite path is the root's.

    A user and password in the address of a server are moved to where MLflow looks for them too, in the
    environment: its errors quote the address. Raises TrackingError for a project in whose path a database's
    address would end too early.
    """
    uri = os.environ.get(STORE, "").strip()
    if not uri or (uri.startswith(SQLITE) and not uri.startswith((SQLITE + "/", SQLITE + ":"))):
        if "?" in str(root) or unquote(str(root)) != str(root):
            raise TrackingError(
                f"{root}: has a `?` or a `%` with two digits in its path, which means something else in the "
                f"address of a database. Rename that folder, or set {STORE} to a store elsewhere."
            )
        return f"{SQLITE}{root / (uri.removeprefix(SQLITE) or 'mlflow.db')}"
    parts = urlsplit(uri)
    if is_server(uri) and parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return without_credentials(uri)
    return uri


def without_credentials(uri: str) -> str:
    """An address as it may be shown. Of a database's, the user stays: with it a password is looked up."""
    if found := USER.match(uri):
        user = f"{found[2]}@" if uri.lower().startswith("postgres") else ""
        uri = f"{found[1] or ''}{user}{uri[found.end() :]}"
    return SECRET_QUERY.sub("", uri).rstrip("?&")


def is_server(uri: str) -> bool:
    """Does a server keep the runs, so that it alone knows where files go?"""
    return uri.lower().startswith(("http:", "https:"))


def is_absent(uri: str) -> bool:
    """Is it a sqlite file that is not there? MLflow would make an empty one."""
    return uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file()


def experiment_name(configured: str) -> str:
    """The experiment of new runs: MLFLOW_EXPERIMENT_NAME, else `tracking.experiment` of params.yaml."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or configured


def artifact_root(uri: str, root: Path) -> str:
    """Where a new experiment of a database keeps its files: MLFLOW_DEFAULT_ARTIFACT_ROOT, else beside a
    sqlite file, else in the project's folder."""
    configured = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip()
    return configured or artifact_folder(uri, root).as_uri()


def artifact_folder(uri: str, root: Path) -> Path:
    folder = (root / uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else root
    return folder / "mlartifacts"


def open_store(uri: str, root: Path, experiment: str) -> tuple[MlflowClient, str]:
    """A client of the store, and the experiment's id; what is missing is made.

    Raises TrackingError for an experiment that was deleted or whose files are no longer where MLflow looks
    for them; else whatever MLflow raises.
    """
    from mlflow import MlflowClient

    prepare(uri, root)
    # The first contact makes the tables of a new database: two processes at once fail.
    with contextlib.nullcontext() if is_server(uri) else store_locked(root):
        client = MlflowClient(uri)
        return client, _experiment_id(client, uri, root, experiment)


def prepare(uri: str, root: Path) -> None:
    """What takes seconds the first time, and waits for nobody: import MLflow, make a sqlite store."""
    import mlflow

    for noisy in ("mlflow", "alembic"):  # no tracebacks: we give the reason
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if not is_server(uri):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        with store_locked(root):
            make_store(uri)


def _experiment_id(client: MlflowClient, uri: str, root: Path, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if is_server(uri) else artifact_root(uri, root)
        try:
            return str(client.create_experiment(name, location, tags=EXPERIMENT_TAGS))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the MLflow experiment `{name}` is deleted: bring it back with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}`, or set `tracking.experiment` or "
            "MLFLOW_EXPERIMENT_NAME to another"
        )
    place = urlsplit(found.artifact_location)
    folder = Path(unquote(place.path)).parent
    if uri.startswith(SQLITE) and place.scheme in ("", "file") and not folder.is_dir():
        here = Path(uri.removeprefix(SQLITE)).parent
        raise TrackingError(
            f"experiment `{name}` keeps its files in {folder}, and that is not there. MLflow keeps absolute "
            "addresses: if this project was moved, a link at the old place leads here, "
            f"`ln -s {here} {folder}`; or set `tracking.experiment` to a new one"
        )
    return str(found.experiment_id)


def make_store(uri: str) -> None:
    """A new sqlite store, complete or not at all: half-made tables would be refused for ever."""
    if not is_absent(uri):
        return
    from mlflow import MlflowClient

    path = Path(uri.removeprefix(SQLITE))
    # SQLite's, beside what a killed process left.
    for left in path.parent.glob(f".{path.name}.*.tmp?*"):
        left.unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.unlink()  # MLflow takes an empty file for an old store
        MlflowClient(f"{SQLITE}{temporary}")


def store_locked(root: Path) -> contextlib.AbstractContextManager[bool]:
    return locked(home(root) / "store.lock")


def client_settings() -> dict[str, str]:
    """A short time for an answer, and no second try: MLflow's own client asks for four minutes."""
    return {
        TIMEOUT: str(TIMEOUT_S),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "OMP_NUM_THREADS": "1",
    }


def reason_of(error: Exception) -> str:
    """Why a store failed, in a line; MLflow wraps three exceptions around a refused connection."""
    if isinstance(error, TrackingError):
        return str(error)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "NewConnectionError" in text:
        return "no connection"
    # What a library's message ends with is its cause; an address in it may have a password.
    return re.sub(r"://[^/\s]*@", "://", text)[-520:]


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """The environment in which MLflow's client is to ask. MLflow overwrites MLFLOW_TRACKING_URI in it, and
    the next run may have another: afterwards all is as before."""
    given = os.environ.get(STORE)
    with environment_set({**client_settings(), **dict.fromkeys(FOREIGN_RUN), STORE: given}):
        yield


@contextlib.contextmanager
def environment_set(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables for a while; None takes one away."""
    before = os.environ.copy()
    for key, value in changes.items():
        os.environ.pop(key, None)
        if value is not None:
            os.environ[key] = value
    try:
        yield
    finally:
        for key in changes:
            os.environ.pop(key, None)
        os.environ.update({key: before[key] for key in changes if key in before})
