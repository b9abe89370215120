"""Where the servers of `make up` are. Each may be missing."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cgan import processes
from cgan.errors import CganError
from cgan.files import read_json
from cgan.hosts import site_of
from cgan.project import PRODUCTION
from cgan.tracking.store import is_server, store_uri, without_credentials


def mlflow_site(root: Path) -> str:
    """The address at which a browser finds MLflow's pages now: of the team's server, or of `make up`'s.

    Empty where neither is there.
    """
    with contextlib.suppress(CganError):
        uri = without_credentials(store_uri(root))
        if is_server(uri):
            return uri if uri.startswith("http") else ""
    return services(root).get("mlflow", "")


def services(root: Path) -> dict[str, str]:
    """What the supervisor of `make up` keeps running: a server's address, a worker's process."""
    found = {}
    for name, pid in processes.running(root).items():
        known = read_json(root / PRODUCTION / processes.STATE)[name]
        port = known["port"]
        found[name] = site_of(known["host"], port) if port else f"process {pid}"
    return found
