"""MLflow's server on the project's store: `cgan ui`, and by it `make up`."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

from cgan.errors import TrackingError
from cgan.store.address import (
    BACKEND,
    PROXIED,
    STORE,
    artifact_folder,
    artifact_root,
    client_settings,
    environment_set,
    is_shared,
    make_store,
    served_store,
    store_locked,
)
from cgan.store.app import EXPERIMENT
from cgan.store.database import require_database

LOOPBACK = "127.0.0.1"
ANYWHERE = (str(ipaddress.IPv4Address(0)), "::")  # every address of this machine


def site_of(host: str, port: int | None) -> str:
    """Where a server that listens there is asked from this machine."""
    return f"http://{_in_url(LOOPBACK if host in ANYWHERE else host)}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def require_meant(host: str, allow_remote: bool) -> None:
    """Raises TrackingError for an address that others can reach, unless that is meant."""
    if not (is_loopback(host) or allow_remote):
        raise TrackingError(
            f"host {host[:100]}: others than this machine could reach the servers there. Add --allow-remote "
            "(make up: ALLOW_REMOTE=yes) if that is meant; docs/security.md says what it means."
        )


def require_free(host: str, port: int, other: str) -> None:
    """Raises TrackingError where nobody can listen; `other` says how to take another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        raise TrackingError(
            f"port {port} cannot be used at {host[:100]} ({error}). End the program that listens there, "
            f"choose another port with {other}, or give an address of this machine, such as {LOOPBACK}."
        ) from None


def serve_ui(
    root: Path, port: int, experiment: str, host: str = LOOPBACK, allow_remote: bool = False
) -> None:
    """Become MLflow's server on the project's store; it opens on the runs of `experiment`.

    Raises TrackingError where the port is taken, a server keeps the runs, the database is away, or others
    could reach it unless `allow_remote`.
    """
    require_meant(host, allow_remote)
    require_free(host, port, "--port")  # MLflow's server would end with exit code 0
    uri = served_store(root)
    require_database(uri, BACKEND if is_shared() else STORE)
    with store_locked(root), environment_set(client_settings()):
        make_store(uri)
    settings = {
        EXPERIMENT: experiment,
        BACKEND: uri,  # not an argument: every user can read those
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"{PROXIED}/" if is_shared() else artifact_root(uri, root),
        # What a server kept stays readable where clients write to the database themselves again.
        "MLFLOW_ARTIFACTS_DESTINATION": os.environ.get("MLFLOW_ARTIFACTS_DESTINATION")
        or artifact_folder(uri, root).as_uri(),
        "MLFLOW_SERVE_ARTIFACTS": "true",
        "PYTHONWARNINGS": "ignore",  # of one library about another
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for LLM judges only
        **({} if host == LOOPBACK else _reachable_at(host, port)),
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "cgan", "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]  # else a line for each request
    command += ["--host", host, "--port", str(port)]
    sys.stdout.write(f"MLflow: {site_of(host, port)} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, **settings})


def _reachable_at(host: str, port: int) -> dict[str, str]:
    """MLflow answers requests for a name that it knows, and pages of its own only. By default it knows
    loopback and, as a host but not as a page's, private addresses."""
    own = _addresses() if host in ANYWHERE else [host]
    names = [*map(_in_url, own), LOOPBACK, "localhost", socket.gethostname(), socket.getfqdn()]
    known = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": [*names, *(f"{name}:{port}" for name in names)],
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": [f"http://{name}:{port}" for name in names],
    }
    return {key: os.environ.get(key) or ",".join(value) for key, value in known.items()}


def _addresses() -> list[str]:
    """The IP addresses of this machine."""
    import psutil

    found = [each for interface in psutil.net_if_addrs().values() for each in interface]
    families = (socket.AF_INET, socket.AF_INET6)
    return [each.address.partition("%")[0] for each in found if each.family in families]
