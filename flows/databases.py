"""Databases that MLflow and Prefect keep their records in: their addresses, and whether they let us in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cgan.errors import CganError
from cgan.tracking.store import BACKEND, STORE, is_server, store_uri, without_credentials

CONNECT_S = 5


def is_database(uri: str) -> bool:
    """Is it a database that other machines can reach, which this process asks itself?"""
    return uri.lower().startswith(("postgres:", "postgresql:", "postgresql+"))


def is_shared() -> bool:
    """Is MLflow's server here to keep runs and files for clients on any machine?"""
    return bool(os.environ.get(BACKEND, "").strip())


def served_store(root: Path) -> str:
    """The database that MLflow's server here is to serve: MLFLOW_BACKEND_STORE_URI, else `store_uri`.

    Raises CganError for a server's address."""
    uri = with_driver(os.environ.get(BACKEND, "").strip() or store_uri(root))
    if is_server(uri):
        raise CganError(
            f"{BACKEND if is_shared() else STORE} is {without_credentials(uri)}, a server: open that in a "
            "browser, or name the database that MLflow's server here is to serve."
        )
    return uri


def with_driver(uri: str, driver: str = "") -> str:
    """The address of a PostgreSQL database for `driver`; by default for one that waits: the one that is
    named, or psycopg2."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not is_database(uri):
        return uri
    named = scheme.lower().partition("+")[2]
    driver = driver or ("psycopg2" if named in ("", "asyncpg") else named)
    option = r"\1ssl=" if driver == "asyncpg" else r"\1sslmode="
    return f"postgresql+{driver}://{re.sub(r'([?&])ssl(?:mode)?=', option, rest)}"


def require_database(uri: str, variable: str = STORE) -> None:
    """Raises CganError where `uri` leads to a database server that cannot be used now, with the driver's
    words and without the password. psycopg2 connects, also for Prefect's asyncpg."""
    if not is_database(uri):
        return
    from sqlalchemy import NullPool, create_engine, make_url

    password = ""
    try:
        if uri.partition("?")[0].count("@") > 1:  # the server would be told a part of the password
            raise ValueError("each @ of a password is written as %40")
        url = make_url(with_driver(uri))
        password = str(url.password or "")
        settings = {"connect_timeout": CONNECT_S}
        create_engine(url, poolclass=NullPool, connect_args=settings).connect().close()
    except Exception as error:  # SQLAlchemy's, or any of the driver's
        said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        said = " ".join(said.split())[:300]
        raise CganError(
            f"{variable}: connecting to {without_credentials(uri)} failed: "
            f"{said.replace(password, '***') if password else said}"
        ) from None
