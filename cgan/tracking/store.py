"""Which MLflow store the runs go to: its address, its kind, its artifacts, how a client asks it.

A store is a database (sqlite in the project unless MLFLOW_TRACKING_URI names another) or a server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from cgan.errors import TrackingError
from cgan.files import replacing
from cgan.tracking.mlflow_app import EXPERIMENT
from cgan.tracking.pages import EXPERIMENT_TAGS, VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

HTTP_TIMEOUT_S = 10
STORE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
NAMED_SERVERS = ("databricks", "databricks-uc", "uc")  # the address is in a configuration of theirs
# Settings of MLflow that would send our records to somebody else's run.
FOREIGN_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME")


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else sqlite in the project's root. A relative sqlite path is the root's.

    A user and password in the address of a server are moved to where MLflow looks for them too, in the
    environment: its errors quote the address.

    Raises TrackingError for a folder (`file:` or a plain path), for MLflow has no file store any more; for
    `host:port` without a scheme; and for a project in whose path a database's address would end too early.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri or (uri.startswith(SQLITE) and not uri.startswith((SQLITE + "/", SQLITE + ":"))):
        if "?" in str(root) or unquote(str(root)) != str(root):
            raise TrackingError(
                f"{root}: has a `?` or a `%` with two digits in its path, which means something else in the "
                "address of a database. Rename that folder, or set MLFLOW_TRACKING_URI to a store elsewhere."
            )
        return f"{SQLITE}{root / (uri.removeprefix(SQLITE) or 'mlflow.db')}"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {uri!r}, without a scheme. Set it to http://{uri}, or https."
        )
    if urlsplit(uri).scheme in ("", "file") and uri not in NAMED_SERVERS:
        folder = uri.removeprefix("file:").replace("//", "/") or "mlruns"
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {uri!r}, a folder; MLflow keeps runs in a database or a server "
            "since 3.13. Move the old runs with `mlflow migrate-filestore --source "
            f"{folder} --target sqlite:///mlflow.db`, then set MLFLOW_TRACKING_URI to "
            "sqlite:///mlflow.db, or unset it: that is the default."
        )
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return without_credentials(uri)
    return uri


def without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_server(uri: str) -> bool:
    """Does a server keep the runs? What is no database is one, such as `azureml://…` or `arn:aws:…`."""
    return urlsplit(uri).scheme.partition("+")[0] not in DATABASES


def experiment_name(configured: str) -> str:
    """The experiment of new runs: MLFLOW_EXPERIMENT_NAME, else `tracking.experiment` of params.yaml."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or configured


def is_absent(uri: str) -> bool:
    """Is it a sqlite file that is not there? MLflow would make an empty one."""
    return uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file()


def artifact_root(uri: str, root: Path) -> Path:
    """Where the artifacts of a local store lie: beside the sqlite file."""
    if uri.startswith(SQLITE):
        return Path(uri.removeprefix(SQLITE)).parent / "mlartifacts"
    return root / "mlartifacts"


def open_store(uri: str, root: Path, experiment: str) -> tuple[MlflowClient, str]:
    """A client of the store, and the experiment's id; what is missing is made.

    Raises TrackingError for an experiment that was deleted, else whatever MLflow raises.
    """
    from mlflow import MlflowClient

    # The first contact makes the tables of a new sqlite store: two processes at once fail.
    with contextlib.nullcontext() if is_server(uri) else _store_locked(root):
        make_store(uri)
        client = MlflowClient(uri)
        return client, _experiment_id(client, uri, root, experiment)


def _experiment_id(client: MlflowClient, uri: str, root: Path, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if is_server(uri) else artifact_root(uri, root).as_uri()
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
    if found.tags.get(VIEW_TAG) != EXPERIMENT_TAGS[VIEW_TAG]:  # an older version made it
        for key, value in EXPERIMENT_TAGS.items():
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def make_store(uri: str) -> None:
    """A new sqlite store, complete or not at all: half-made tables would be refused for ever."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or path.exists():
        return
    from mlflow import MlflowClient

    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):  # its maker was killed
        leftover.unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.unlink()  # MLflow takes an empty file for an old store
        MlflowClient(f"{SQLITE}{temporary}")


@contextlib.contextmanager
def _store_locked(root: Path) -> Iterator[None]:
    path = root / ".cgan" / "store.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def client_settings() -> dict[str, str]:
    """Short timeouts and no retries: the sender tries again by itself, and knows when to give up."""
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(HTTP_TIMEOUT_S),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "OMP_NUM_THREADS": "1",
    }


def reason_of(error: Exception) -> str:
    """Why a store failed, in a line; MLflow wraps three exceptions around a refused connection."""
    text = str(error).strip() or type(error).__name__
    if said := re.search(r"\(sqlite3\.\w+\) (.+)", text):  # in the midst of SQLAlchemy's words
        return said[1][:200]
    text = text.splitlines()[0]
    for sign, reason in (
        ("timed out", "no answer in time"),
        ("NewConnectionError", "no connection"),
        ("Max retries exceeded", "no connection"),
    ):
        if sign in text:
            return reason
    return text[:200]


def serve_ui(root: Path, port: int, experiment: str) -> None:
    """Become MLflow's server on the project's store; it opens on the runs of `experiment`.

    Raises TrackingError where a server keeps the runs, or the package has to be installed again.
    """
    uri = store_uri(root)
    if is_server(uri):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI names a server, {without_credentials(uri)}: open that in a browser."
        )
    if not entry_points(group="mlflow.app", name="cgan"):  # an update brought it
        raise TrackingError(
            "MLflow does not know our pages: the package was installed before it had them. Install it again: "
            "`make env`, or `pip install -e '.[pipeline]'`."
        )
    with _store_locked(root), environment_set(client_settings()):
        make_store(uri)
    settings = {
        EXPERIMENT: experiment,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: every user can read those
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(uri, root).as_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "cgan", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    sys.stdout.write(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, **settings})


@contextlib.contextmanager
def environment_set(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables for a while; None takes one away."""
    before = {key: os.environ.get(key) for key in changes}

    def apply(values: Mapping[str, str | None]) -> None:
        for key, value in values.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

    apply(changes)
    try:
        yield
    finally:
        apply(before)
