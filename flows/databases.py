"""Where the servers of `make up` keep their state: databases of the environment, or SQLite in the project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cgan.errors import CganError
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
from flows.servers import FORMER_NAME, PREFECT_DATABASE, Production


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


def databases_of(production: Production) -> Databases:
    """By MLFLOW_BACKEND_STORE_URI, MLFLOW_TRACKING_URI and PREFECT_SERVER_DATABASE_CONNECTION_URL.

    Raises CganError for what is no store, for a database that cannot be used now, and for another than
    that of a server which an earlier `up` started.
    """
    found = _by_environment(production.root)
    for name, variable in (("mlflow", BACKEND), ("prefect", PREFECT_DATABASE)):
        known, wanted = production.known().get(name), found.shown(name)
        if known and known.database != wanted:
            raise CganError(
                f"the {name} server was started on {known.database or 'SQLite'}, and the environment leads "
                f"to {wanted or 'SQLite'} now. Set {variable} as it was then, or `make down` first."
            )
    require_database(found.mlflow, BACKEND if is_shared() else STORE)
    require_database(found.prefect, PREFECT_DATABASE)
    return found


def _by_environment(root: Path) -> Databases:
    given = os.environ.get(PREFECT_DATABASE) or os.environ.get(FORMER_NAME) or ""
    prefect = with_driver(given.strip(), "asyncpg")
    if is_shared():
        clients = store_uri(root) if os.environ.get(STORE, "").strip() else ""
        return Databases(served_store(root), prefect, clients if is_server(clients) else "")
    uri = store_uri(root)
    return Databases("" if is_server(uri) else uri, prefect, uri)
