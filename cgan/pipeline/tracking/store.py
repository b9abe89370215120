"""Which MLflow store the runs go to: its address, its experiment, how a client asks it."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.files import locked, replacing
from cgan.hosts import is_server, no_proxy_variables, without_credentials
from cgan.project import STRIP, home, project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Environment variables of MLflow's: the store that a client writes to, and the one that a server keeps.
STORE_VARIABLE, BACKEND_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI"
TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
RETRIES_VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TIMEOUT_S = 10  # for an answer, where the user has set no other
SQLITE = "sqlite:///"
RUN_ID_PLACEHOLDER = "{run_id}"  # in a tag that is recorded before the run has an id
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
STRIP_MARKDOWN = (
    f"![A drawing of each class](get-artifact?path={STRIP.name}&run_uuid={RUN_ID_PLACEHOLDER})"
)
# In the message of a database's driver or a client: `password=…`, `?token=…`.
SECRET = re.compile(
    r"(?i)(\w*(?:password|passwd|pwd|token|secret|key|signature)\w*=)['\"]?[^\s&;,)'\"]+['\"]?"
)
# Without it, the experiment's page in MLflow asks for the kind.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, a server or a database, else sqlite in the project's root, as a relative path of
    sqlite is."""
    uri = os.environ.get(STORE_VARIABLE, "").strip() or f"{SQLITE}mlflow.db"
    path = uri.removeprefix(SQLITE)
    return uri if path == uri or path.startswith(":") else f"{SQLITE}{root / path}"


def is_absent(uri: str) -> bool:
    """Is it a sqlite file that is not there? MLflow would make an empty one."""
    return uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file()


def experiment_name(configured: str) -> str:
    """The experiment of new runs: MLFLOW_EXPERIMENT_NAME, else `tracking.experiment` of params.yaml."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or configured


def artifact_root(uri: str, root: Path) -> str:
    """Where files of a database's new experiments go: MLFLOW_DEFAULT_ARTIFACT_ROOT, else beside a sqlite
    file, else into the project."""
    folder = (root / uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else root
    configured = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip()
    return configured or (folder / "mlartifacts").as_uri()


def set_environment(timeout_s: int = TIMEOUT_S) -> None:
    """Set the environment, which MLflow reads at each call. By MLflow's defaults a client would try for four
    minutes: here it tries once, unless the user has set another number."""
    os.environ.setdefault(RETRIES_VARIABLE, "0")
    os.environ.setdefault(TIMEOUT_VARIABLE, str(timeout_s))
    for name, value in (MLFLOW_SETTINGS | no_proxy_variables(os.environ)).items():
        if os.environ.get(name) != value:  # a write while another thread reads can end the process
            os.environ[name] = value


def open_store(uri: str, timeout_s: int = TIMEOUT_S) -> MlflowClient:
    """A client. All that takes seconds the first time and waits for no server: import MLflow, make a sqlite
    store."""
    set_environment(timeout_s)
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):  # no tracebacks: we give the reason
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    path = Path(uri.removeprefix(SQLITE))
    if is_absent(uri):  # made whole or not at all: half-made tables would be refused for ever
        with store_locked():
            if is_absent(uri):
                with replacing(path) as temporary:
                    temporary.unlink()  # MLflow takes an empty file for an old store
                    MlflowClient(f"{SQLITE}{temporary}")
    return MlflowClient(uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made where there is none. Raises whatever MLflow raises."""
    uri = str(client.tracking_uri)
    with contextlib.nullcontext() if is_server(uri) else store_locked():
        if experiment := client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        artifact_location = None if is_server(uri) else artifact_root(uri, project_root())
        return str(client.create_experiment(name, artifact_location, tags=EXPERIMENT_TAGS))


def store_locked() -> contextlib.AbstractContextManager[bool]:
    return locked(home() / "store.lock")


def reason_of(error: BaseException) -> str:
    """Why a store failed, in a line: MLflow and its libraries wrap a refused connection in three others."""
    cause: BaseException | None = error
    while cause:
        error = cause if isinstance(cause, OSError) else error
        cause = cause.__cause__ or cause.__context__
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"://\S*@", "://", text)  # an address in it may have a password
    return SECRET.sub(r"\1…", text)[-520:]


def failure_in_words(uri: str, error: BaseException) -> str:
    return (
        f"MLflow at {without_credentials(uri)} cannot be used now ({reason_of(error).rstrip('.')})"
    )


def requester_tags() -> dict[str, str]:
    """Who runs this, as tags: the user, if the container's passwd knows one, and MLFLOW_RUN_CONTEXT, in which
    the flow names itself (`prefect.flow_run_id` and others)."""
    facts = dict[str, Any]()
    # What is no object in JSON MLflow ignores, too.
    with contextlib.suppress(ValueError, TypeError):
        facts |= json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    with contextlib.suppress(OSError, KeyError):
        facts["mlflow.user"] = getpass.getuser()
    return {key: str(value) for key, value in facts.items()}
