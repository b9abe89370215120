"""Does a database server let us in? Asked before MLflow or Prefect are: they try for minutes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cgan.errors import TrackingError
from cgan.store.address import STORE, is_database, without_credentials

if TYPE_CHECKING:
    from sqlalchemy import URL

CONNECT_S = 5
WAIT = {"asyncpg": "timeout", "psycopg": "connect_timeout", "psycopg2": "connect_timeout"}


def require_database(uri: str, variable: str = STORE) -> None:
    """Raises TrackingError where `uri` leads to a database server that cannot be used now, with the driver's
    words and without the password."""
    if not is_database(uri):
        return
    from sqlalchemy import make_url

    password = ""
    try:
        if uri.partition("?")[0].count("@") > 1:  # the server would be told a part of the password
            raise ValueError("each @ of a password is written as %40")
        url = make_url(uri)
        password = str(url.password or "")
        _connect(url)
    except Exception as error:  # SQLAlchemy's, or any of the driver's
        said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        said = " ".join(said.split())[:300]
        raise TrackingError(
            f"{variable}: connecting to {without_credentials(uri)} failed: "
            f"{said.replace(password, '***') if password else said}"
        ) from None


def _connect(url: URL) -> None:
    from sqlalchemy import NullPool, create_engine

    dialect = url.get_dialect()
    settings: dict[str, Any] = {"poolclass": NullPool}
    if dialect.driver in WAIT:
        settings["connect_args"] = {WAIT[dialect.driver]: CONNECT_S}
    if not dialect.is_async:
        create_engine(url, **settings).connect().close()
        return

    async def connect() -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        async with create_async_engine(url, **settings).connect():
            pass

    asyncio.run(connect())
