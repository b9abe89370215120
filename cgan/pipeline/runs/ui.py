"""`cgan ui`: MLflow's own server on the project's store."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from cgan.base import hosts
from cgan.base.errors import CganError
from cgan.pipeline.tracking import store


def serve_ui(root: Path, port: int) -> NoReturn:
    """Become `mlflow server` for the project's store; MLflow's own variables set the rest. Raises CganError
    where the port is taken or a server keeps the runs."""
    hosts.require_free(hosts.LOOPBACK, port, "--port")  # MLflow's server would end with exit code 0
    uri = store.store_uri(root)
    if hosts.is_server(uri):
        shown = hosts.without_credentials(uri)
        raise CganError(f"{store.STORE_VARIABLE} is {shown}, a server: open it in a browser.")
    settings = {
        **store.MLFLOW_SETTINGS,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": store.artifact_root(uri, root),
        "MLFLOW_REGISTRY_STORE_URI": uri,  # or MLflow talks of it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        "PYTHONWARNINGS": "ignore",  # of one library about another
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # no argument: every user can read those
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]
    typer.echo(f"MLflow, in some seconds: {hosts.site_of(hosts.LOOPBACK, port)} (Ctrl-C ends it)")
    os.execve(sys.executable, command, settings)  # nosec B606: MLflow's own program
