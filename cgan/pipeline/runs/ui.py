"""`cgan ui`: MLflow's own server on the project's store."""

import importlib
import os
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

from cgan import hosts
from cgan.errors import CganError
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.runs_view import add_runs_view

FILES = "MLFLOW_ARTIFACTS_DESTINATION"


def serve_ui(root: Path, port: int, experiment: str) -> int:
    """Run `mlflow server` on this machine until it ends: its exit code. Says where the runs of `experiment`
    are once it answers, and opens that in a browser.

    It serves MLFLOW_BACKEND_STORE_URI, else the project's store; MLflow's own variables set the rest. Raises
    CganError where the port is taken or a server keeps the runs.
    """
    hosts.require_free(hosts.LOOPBACK, port, "--port")  # MLflow's server would end with exit code 0
    backend = os.environ.get(store.BACKEND_VARIABLE, "").strip()
    uri = backend or store.store_uri(root)
    if hosts.is_server(uri):
        raise CganError(
            f"{store.STORE_VARIABLE} is {hosts.without_credentials(uri)}, a server already: open it in a "
            f"browser, or set {store.BACKEND_VARIABLE} to the database that `cgan ui` should show."
        )
    url, files = hosts.site_of(hosts.LOOPBACK, port), store.artifact_root(uri, root)
    if os.environ.get(FILES, files).startswith("s3:"):
        importlib.import_module("boto3")  # or the server answers each file with 500 and no reason
    settings = {
        **store.MLFLOW_SETTINGS,
        # With MLFLOW_BACKEND_STORE_URI clients are on any machine, and files go by way of the server.
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "mlflow-artifacts:/" if backend else files,
        FILES: files,
        "MLFLOW_REGISTRY_STORE_URI": uri,  # or MLflow talks of it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        "PYTHONWARNINGS": "ignore",  # of one library about another
    }
    try:  # MLflow's server would end with a traceback
        client = store.open_store(uri)
        if record := client.get_experiment_by_name(experiment):
            add_runs_view(client, record)
            url = hosts.mlflow_page(url, record.experiment_id)
    except Exception as error:  # of MLflow, of a database's driver
        raise CganError(
            f"the MLflow store {hosts.without_credentials(uri)} cannot be shown: "
            f"{store.reason_of(error).rstrip('.')}. If a newer MLflow made it, install that: `pip install -U "
            "mlflow`."
        ) from None
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]
    # The address of the store is no argument: every user can read those.
    environment = {**settings, **os.environ, store.BACKEND_VARIABLE: uri}
    with subprocess.Popen(command, env=environment) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.terminate())
        while server.poll() is None and not hosts.answers(port):
            time.sleep(0.2)
        if server.poll() is None:
            sys.stdout.write(f"MLflow: {url} (Ctrl-C ends it)\n")
            sys.stdout.flush()
            if sys.stdout.isatty():
                webbrowser.open(url)
        return server.wait()
