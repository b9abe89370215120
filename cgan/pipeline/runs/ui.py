"""`cgan ui`: MLflow's own server on the project's store."""

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

FILES = "MLFLOW_ARTIFACTS_DESTINATION"


def serve_ui(root: Path, port: int) -> int:
    """Run `mlflow server` on this machine until it ends: its exit code. Says where the runs are once it
    answers, and opens that in a browser.

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
    settings = {
        **store.MLFLOW_SETTINGS,
        # With MLFLOW_BACKEND_STORE_URI clients are on any machine, and files go by way of the server.
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "mlflow-artifacts:/" if backend else files,
        FILES: files,
        "MLFLOW_REGISTRY_STORE_URI": uri,  # or MLflow talks of it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        "PYTHONWARNINGS": "ignore",  # of one library about another
    }
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
