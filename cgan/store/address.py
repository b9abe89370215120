"""Which MLflow store the runs go to: its address, its kind, its artifacts, how a client asks it.

A store is a database (sqlite in the project unless MLFLOW_TRACKING_URI names another) or a server.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cgan.errors import TrackingError
from cgan.files import locked, replacing
from cgan.project import home
from cgan.store.pages import EXPERIMENT_TAGS, VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

HTTP_TIMEOUT_S = 10
STORE = "MLFLOW_TRACKING_URI"
BACKEND = (
    "MLFLOW_BACKEND_STORE_URI"  # what MLflow's server keeps the runs in; clients ask the server
)
SQLITE = "sqlite:///"
PROXIED = "mlflow-artifacts:"  # files go to and from MLflow's server, which knows where they lie
# Where a database has absolute addresses of files.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# Settings of MLflow that would send our records to somebody else's run.
FOREIGN_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME")

USER = re.compile(r"([\w+.-]+://)?+([^:/@?#]*)(:.*)?@")  # a password ends at the last @
SECRET_QUERY = re.compile(
    r"(?<=[?&])[^=&]*(passw|pwd|secret|token|key)[^=&]*=[^&]*&?", re.IGNORECASE
)


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else sqlite in the project's root. A relative sqlite path is the root's.

    A user and password in the address of a server are moved to where MLflow looks for them too, in the
    environment: its errors quote the address.

    Raises TrackingError for what is no store, such as a folder; for a project in whose path a database's
    address would end too early; and where MLFLOW_BACKEND_STORE_URI says that a server keeps the runs, but
    nothing says which.
    """
    if is_shared() and not os.environ.get(STORE, "").strip():
        raise TrackingError(
            f"{BACKEND} is set: MLflow's server keeps the runs in that database. Set {STORE} to the server's "
            f"address, which `make up` says, or unset {BACKEND}."
        )
    return _store_named(STORE, root)


def served_store(root: Path) -> str:
    """The database that MLflow's server here is to serve: MLFLOW_BACKEND_STORE_URI, else `store_uri`.

    Raises TrackingError for what is no database, or no store at all."""
    variable = BACKEND if is_shared() else STORE
    uri = _store_named(variable, root)
    if is_server(uri):
        raise TrackingError(
            f"{variable} is {without_credentials(uri)}, a server: open that in a browser, or set {variable} "
            "to the database that MLflow's server here is to serve."
        )
    return uri


def is_shared() -> bool:
    """Is MLflow's server here to keep runs and files for clients on any machine? MLFLOW_BACKEND_STORE_URI
    says so. They then know the server's address only."""
    return bool(os.environ.get(BACKEND, "").strip())


def _store_named(variable: str, root: Path) -> str:
    uri = os.environ.get(variable, "").strip()
    if not uri or (uri.startswith(SQLITE) and not uri.startswith((SQLITE + "/", SQLITE + ":"))):
        if "?" in str(root) or unquote(str(root)) != str(root):
            raise TrackingError(
                f"{root}: has a `?` or a `%` with two digits in its path, which means something else in the "
                f"address of a database. Rename that folder, or set {variable} to a store elsewhere."
            )
        if not uri:
            _follow_move(root)
        return f"{SQLITE}{root / (uri.removeprefix(SQLITE) or 'mlflow.db')}"
    if is_database(uri):
        return with_driver(uri)
    if not is_server(uri) and not uri.startswith(SQLITE):
        raise TrackingError(
            f"{variable} is {without_credentials(uri)!r}, which is not supported. Expected {SQLITE}file.db, "
            "postgresql://…, http://… or https://…. Runs that a former MLflow keeps in a folder move with "
            "`mlflow migrate-filestore --source FOLDER --target sqlite:///mlflow.db`."
        )
    parts = urlsplit(uri)
    if parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return without_credentials(uri)
    return uri


def _follow_move(root: Path) -> None:
    """Point the project's own store to the files beside it, where it has addresses of another folder.

    MLflow knows absolute addresses only. The project was moved, if nothing is left there, or copied, if a
    store is there too. A store that cannot be read or written now is left for whoever opens it.
    """
    here = (root / "mlartifacts").as_uri()
    with contextlib.suppress(sqlite3.Error, OSError):
        address = f"{(root / 'mlflow.db').as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as store, store:
            known = store.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
            for (there,) in known:
                folder = Path(unquote(urlsplit(str(there)).path))
                is_elsewhere = folder.exists() and not folder.with_name("mlflow.db").exists()
                is_ours = re.fullmatch("file:///.*/mlartifacts", str(there))
                if is_ours and there != here and not is_elsewhere:
                    for table, column in ADDRESSES:
                        moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # nosec B608
                        store.execute(moved, (there, here))


def with_driver(uri: str, driver: str = "") -> str:
    """The address of a PostgreSQL database for `driver`; by default for MLflow, which needs one that waits:
    the one that is named, or psycopg2."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not is_database(uri):
        return uri
    named = scheme.lower().partition("+")[2]
    driver = driver or ("psycopg2" if named in ("", "asyncpg") else named)
    option = r"\1ssl=" if driver == "asyncpg" else r"\1sslmode="
    return f"postgresql+{driver}://{re.sub(r'([?&])ssl(?:mode)?=', option, rest)}"


def without_credentials(uri: str) -> str:
    """An address as it may be shown. Of a database's, the user stays: with it a password is looked up."""
    if found := USER.match(uri):
        user = f"{found[2]}@" if is_database(uri) else ""
        uri = f"{found[1] or ''}{user}{uri[found.end() :]}"
    return SECRET_QUERY.sub("", uri).rstrip("?&")


def is_server(uri: str) -> bool:
    """Does a server keep the runs, so that it alone knows where files go?"""
    return uri.lower().startswith(("http:", "https:"))


def is_database(uri: str) -> bool:
    """Is it a database that other machines can reach, which this process asks itself?"""
    return uri.lower().startswith(("postgres:", "postgresql:", "postgresql+"))


def experiment_name(configured: str) -> str:
    """The experiment of new runs: MLFLOW_EXPERIMENT_NAME, else `tracking.experiment` of params.yaml."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or configured


def is_absent(uri: str) -> bool:
    """Is it a sqlite file that is not there? MLflow would make an empty one."""
    return uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file()


def artifact_root(uri: str, root: Path) -> str:
    """Where a new experiment of a database keeps its files, if this process is to write them itself: beside
    a sqlite file, else in MLFLOW_DEFAULT_ARTIFACT_ROOT or the project's folder."""
    configured = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip()
    if is_database(uri) and configured and not configured.startswith(PROXIED):
        return configured
    return artifact_folder(uri, root).as_uri()


def artifact_folder(uri: str, root: Path) -> Path:
    folder = Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else root
    return folder / "mlartifacts"


def open_store(uri: str, root: Path, experiment: str) -> tuple[MlflowClient, str]:
    """A client of the store, and the experiment's id; what is missing is made.

    Raises TrackingError for a database that is away, and for an experiment that was deleted or whose files
    cannot be reached from here; else whatever MLflow raises.
    """
    from mlflow import MlflowClient

    from cgan.store.database import require_database

    # The first contact makes the tables of a new sqlite store: two processes at once fail.
    with contextlib.nullcontext() if is_server(uri) else store_locked(root):
        require_database(uri)
        make_store(uri)
        client = MlflowClient(uri)
        return client, _experiment_id(client, uri, root, experiment)


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
    require_files(uri, found)
    if found.tags.get(VIEW_TAG) != EXPERIMENT_TAGS[VIEW_TAG]:  # made elsewhere
        for key, value in EXPERIMENT_TAGS.items():
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def require_files(uri: str, experiment: Experiment) -> None:
    """Raises TrackingError where files of new runs would not arrive."""
    name, location = experiment.name, experiment.artifact_location
    if not is_server(uri) and location.startswith(PROXIED):
        raise TrackingError(
            f"the files of experiment `{name}` go through MLflow's server: set {STORE} to its address, "
            "http://…, not to the database's"
        )
    folder = Path(unquote(urlsplit(location).path))
    if is_server(uri) and location.startswith(("file:", "/")) and not folder.parent.is_dir():
        raise TrackingError(
            f"experiment `{name}` keeps files in a folder of the server's machine, {folder}. "
            "Set `tracking.experiment` or MLFLOW_EXPERIMENT_NAME to a new one, whose files it takes itself"
        )


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
    """Short timeouts and no retries: the follower tries again by itself, and knows when to give up."""
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(HTTP_TIMEOUT_S),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "OMP_NUM_THREADS": "1",
    }


def reason_of(error: Exception) -> str:
    """Why a store failed, in a line; MLflow wraps three exceptions around a refused connection."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "NewConnectionError" in text:
        return "no connection"
    return text[-200:]  # what a library's message ends with is its cause


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
