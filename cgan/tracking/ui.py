"""`cgan ui`: MLflow's own server on the project's store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from pathlib import Path

from cgan.errors import CganError
from cgan.hosts import LOOPBACK, names_here, require_free, require_meant, site_of
from cgan.tracking.pages import runs_page
from cgan.tracking.store import (
    BACKEND,
    STORE,
    artifact_folder,
    artifact_root,
    is_absent,
    is_server,
    prepare,
    store_uri,
    without_credentials,
)


def serve_ui(
    root: Path, port: int, experiment: str, host: str = LOOPBACK, allow_remote: bool = False
) -> int:
    """Run `mlflow server` until it ends, and show the runs of `experiment`: its exit code.

    It serves MLFLOW_BACKEND_STORE_URI, else the project's store; MLflow's own variables set the rest. Raises
    CganError where the port is taken, a server keeps the runs, or others could reach it unless
    `allow_remote`.
    """
    require_meant(host, allow_remote)
    require_free(host, port, "--port")  # MLflow's server would end with exit code 0
    given = os.environ.get(BACKEND, "").strip()
    uri = given or store_uri(root)
    if is_server(uri):
        raise CganError(
            f"{STORE} is {without_credentials(uri)}, a server: open that in a browser, or set {BACKEND} to "
            "the database that MLflow's server here is to serve."
        )
    if is_absent(uri):
        prepare(uri, root)
    files = artifact_folder(uri, root).as_uri()
    # With MLFLOW_BACKEND_STORE_URI clients are on any machine, and files go by way of the server.
    settings = {
        "MLFLOW_REGISTRY_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "mlflow-artifacts:/" if given else artifact_root(uri, root),
        "MLFLOW_ARTIFACTS_DESTINATION": files,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",  # of one library about another
    }
    if host != LOOPBACK:  # it answers for names that it knows, and pages of its own only
        names = names_here(host, port)
        settings["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(names)
        origins = [f"http://{name}" for name in names]
        settings["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", host]
    command += ["--port", str(port), "--uvicorn-opts", "--log-level warning"]
    # The address is no argument: every user can read those.
    with subprocess.Popen(command, env={**settings, **os.environ, BACKEND: uri}) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.terminate())
        page = _page(site_of(host, port), experiment, server)
        if page:
            sys.stdout.write(f"MLflow: {page} (Ctrl-C ends it)\n")
            sys.stdout.flush()
            if sys.stdout.isatty():
                webbrowser.open(page)
        return server.wait()


def _page(site: str, experiment: str, server: subprocess.Popen[bytes]) -> str:
    """The address of the experiment's runs, or of the server where there is none yet, once it answers; empty
    where it has ended."""
    name = urllib.parse.quote(experiment)
    question = f"{site}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}"
    while server.poll() is None:
        try:
            with urllib.request.urlopen(question, timeout=5) as answer:  # nosec B310
                return runs_page(site, json.load(answer)["experiment"]["experiment_id"])
        except urllib.error.HTTPError:
            return site
        except (OSError, ValueError, KeyError):
            time.sleep(0.2)
    return ""
