"""The MLflow store that the runs go to: its address, its experiment, its tags, how a client asks it."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from cgan.base.errors import CganError
from cgan.base.files import locked, replacing
from cgan.base.hosts import LOOPBACK, require_free, site_of, without_credentials
from cgan.pipeline.project import STRIP, home, project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Tags of a run that more than one module writes or reads, as existing stores have them.
RUN_KEY_TAG = "cgan.run_key"
FINGERPRINT_TAG = "cgan.fingerprint"  # of the training: names the folder of its checkpoints
GENERATOR_SHA256_TAG = "cgan.generator_sha256"
QUALITY_TAG = "cgan.quality"  # how good its drawings are, in a sentence
DATA_TAG = "data"
SOURCE_TAG = "mlflow.source.name"  # the module that trained
COMMIT_TAG, DIRTY_TAG = "mlflow.source.git.commit", "git.dirty"

STORE_VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
# By its defaults a client would try for four minutes: it tries once, where the user has set nothing else.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Without it, the experiment's page in MLflow asks for the kind.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, a server or a database, else mlflow.db; paths of sqlite are from the root."""
    uri = os.environ.get(STORE_VARIABLE, "").strip() or f"{SQLITE}mlflow.db"
    path = uri.removeprefix(SQLITE)
    return uri if path == uri or path.startswith(":") else f"{SQLITE}{root / path}"


def is_server(uri: str) -> bool:
    """Does a server of MLflow keep the runs, so that it alone knows where files go?"""
    return uri.lower().startswith(("http:", "https:"))


def page_in_mlflow(run: Mapping[str, Any]) -> str:
    """The address of the run in RUN_LOCATION. `make up` and `cgan ui` serve a store that is a file."""
    site = str(run["tracking_uri"])
    if not is_server(site):
        site = site_of(LOOPBACK, int(os.environ.get("MLFLOW_PORT", "5000")))
    ids = (quote(str(run[key]), safe="") for key in ("experiment_id", "run_id"))
    # Without the query a new browser gets MLflow's pages for GenAI.
    return "{}/#/experiments/{}/runs/{}?workflowType=machine_learning".format(
        site.rstrip("/"), *ids
    )


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


def set_environment() -> None:
    """Set the environment, which MLflow reads at each call."""
    settings = {name: os.environ.get(name, value) for name, value in PATIENCE.items()}
    for name, value in (settings | MLFLOW_SETTINGS).items():
        if os.environ.get(name) != value:  # a write while another thread reads can end the process
            os.environ[name] = value


def open_store(uri: str) -> MlflowClient:
    """A client. What is slow and needs no server is done here: to import MLflow, to make a sqlite store."""
    set_environment()
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):  # no tracebacks: we give the reason
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if is_absent(uri):  # made whole or not at all: half-made tables would be refused for ever
        with store_locked():
            if is_absent(uri):
                with replacing(uri.removeprefix(SQLITE)) as temporary:
                    temporary.unlink()  # MLflow takes an empty file for an old store
                    MlflowClient(f"{SQLITE}{temporary}")
    return MlflowClient(uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made where there is none. Raises whatever MLflow raises."""
    with store_locked():
        if experiment := client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        uri = str(client.tracking_uri)
        artifact_location = None if is_server(uri) else artifact_root(uri, project_root())
        return str(client.create_experiment(name, artifact_location, tags=EXPERIMENT_TAGS))


def store_locked() -> contextlib.AbstractContextManager[bool]:
    return locked(home() / "store.lock")


def reason_of(error: BaseException) -> str:
    """Why a store failed, in a line, without the password of an address in it."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"://\S*@", "://", text)[-520:]


def strip_markdown(run_id: str) -> str:
    """A run's drawing of each class, on MLflow's pages."""
    return f"![A drawing of each class](get-artifact?path={STRIP.name}&run_uuid={run_id})"


def failure_in_words(uri: str, error: BaseException) -> str:
    return f"MLflow at {without_credentials(uri)} cannot be used ({reason_of(error).rstrip('.')})"


def requester_tags() -> dict[str, str]:
    """Who runs this, as tags: the user, and MLFLOW_RUN_CONTEXT, in which the flow names itself
    (`prefect.flow_run_id` and others)."""
    tags = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    with contextlib.suppress(OSError, KeyError):  # a container's passwd may know no name
        tags["mlflow.user"] = getpass.getuser()
    return {key: str(value) for key, value in tags.items()}


def serve_pages(root: Path, port: int) -> NoReturn:
    """Become `mlflow server` for the project's store; MLflow's own variables set the rest. Raises CganError
    where the port is taken or a server keeps the runs."""
    require_free(LOOPBACK, port, "--port")  # MLflow's server would end with exit code 0
    uri = store_uri(root)
    if is_server(uri):
        shown = without_credentials(uri)
        raise CganError(f"{STORE_VARIABLE} is {shown}, a server: open it in a browser.")
    settings = {
        **MLFLOW_SETTINGS,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(uri, root),
        "MLFLOW_REGISTRY_STORE_URI": uri,  # or MLflow talks of it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        "PYTHONWARNINGS": "ignore",  # of one library about another
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # no argument: every user can read those
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]
    sys.stdout.write(f"MLflow, in some seconds: {site_of(LOOPBACK, port)} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    os.execve(sys.executable, command, settings)  # nosec B606: MLflow's own program
