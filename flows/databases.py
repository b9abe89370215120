"""Where the servers of `make up` keep their state: databases of the environment, or SQLite in the project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cgan.store.address import (
    BACKEND,
    STORE,
    is_database,
    is_server,
    is_shared,
    served_store,
    store_uri,
    with_driver,
    without_credentials,
)
from cgan.store.database import require_database
from flows.servers import FORMER_NAME, PREFECT_DATABASE


@dataclass(frozen=True)
class Databases:
    """Addresses with passwords: for environments of servers only."""

    mlflow: str  # to be served; "" where a server elsewhere keeps the runs
    prefect: str  # "": SQLite in Prefect's folder
    clients: str  # MLFLOW_TRACKING_URI of whoever records; "": that of the server of `make up`

    @property
    def settings(self) -> dict[str, str]:
        """What the servers are told in their environment."""
        mlflow = {BACKEND: self.mlflow} if is_shared() else {}
        return mlflow | ({PREFECT_DATABASE: self.prefect} if self.prefect else {})

    def shown(self, name: str) -> str:
        """As it may be written down; "" for what is our own file."""
        if name == "prefect":
            return without_credentials(self.prefect)
        return without_credentials(self.mlflow) if is_shared() or is_database(self.mlflow) else ""


def databases_of(root: Path) -> Databases:
    """By MLFLOW_BACKEND_STORE_URI, MLFLOW_TRACKING_URI and PREFECT_SERVER_DATABASE_CONNECTION_URL.

    Raises CganError for what is no store, and for a database that cannot be used now.
    """
    given = os.environ.get(PREFECT_DATABASE) or os.environ.get(FORMER_NAME) or ""
    prefect = with_driver(given.strip(), "asyncpg")
    clients = store_uri(root) if os.environ.get(STORE, "").strip() or not is_shared() else ""
    mlflow = served_store(root) if is_shared() or not is_server(clients) else ""
    require_database(mlflow, BACKEND if is_shared() else STORE)
    require_database(prefect, PREFECT_DATABASE)
    return Databases(mlflow, prefect, "" if is_shared() and not is_server(clients) else clients)
