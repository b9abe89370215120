"""Does a database server let us in? Asked before MLflow or Prefect are: they try for minutes, and end in
tracebacks."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from cgan.errors import TrackingError, extra_with
from cgan.tracking.store import STORE, is_database, without_credentials

if TYPE_CHECKING:
    from sqlalchemy import URL

CONNECT_S = 5
WAIT = {  # the drivers' names for how long to wait for a connection
    "asyncpg": "timeout",
    "psycopg": "connect_timeout",
    "psycopg2": "connect_timeout",
    "pymysql": "connect_timeout",
    "pyodbc": "timeout",
}


def require_database(uri: str, variable: str = STORE) -> None:
    """Raises TrackingError, without the password, where `uri` leads to a database server that cannot be used
    now: away, not letting us in, without that database, or without its driver here."""
    if not is_database(uri):
        return
    from sqlalchemy import make_url
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    start = f"{variable}: the database {without_credentials(uri)} cannot be used"
    try:
        url = make_url(uri)
        if uri.partition("?")[0].count("@") > 1:  # the server would be told a part of the password
            raise ValueError
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise TrackingError(f"{start}: no installed package knows `{url.drivername}`.") from None
    except ImportError as error:
        module = error.name or url.drivername
        extra = extra_with(module)
        what = (
            f"pip install 'cgan[{extra}]'"
            if extra
            else f"Install the package that brings `{module}`"
        )
        raise TrackingError(f"{start}: `{module}` is not installed. {what}.") from None
    except (SQLAlchemyError, ValueError):
        raise TrackingError(
            f"{start}: it is no address. Expected postgresql://user:password@host:5432/name; in a password "
            "each of @ : / ? # % is written as %40 and so on."
        ) from None
    try:
        encoding = _connect(url)
    except Exception as error:
        known = isinstance(
            error, (SQLAlchemyError, OSError, TypeError)
        )  # the last: an unknown option
        if not known and not type(error).__module__.startswith("asyncpg"):
            raise
        reason = _reason(error, url)
        raise TrackingError(f"{start}: {reason}. {_advice(reason, url)}") from None
    if encoding not in ("UTF8", ""):
        raise TrackingError(
            f"{start}: its encoding is {encoding}, and names of runs need UTF8. Make another: createdb "
            f"--encoding UTF8 --template template0 {_place(url)} NAME."
        )


def _connect(url: URL) -> str:
    """Connect, and return a PostgreSQL database's encoding."""
    from sqlalchemy import NullPool, create_engine, text

    dialect = url.get_dialect()
    settings: dict[str, Any] = {"poolclass": NullPool}
    if dialect.driver in WAIT:
        settings["connect_args"] = {WAIT[dialect.driver]: CONNECT_S}
    question = text("SHOW server_encoding" if dialect.name == "postgresql" else "SELECT ''")
    if not dialect.is_async:
        with create_engine(url, **settings).connect() as connection:
            return str(connection.scalar(question))

    async def connect() -> str:
        from sqlalchemy.ext.asyncio import create_async_engine

        async with create_async_engine(url, **settings).connect() as connection:
            return str(await connection.scalar(question))

    return asyncio.run(connect())


def _reason(error: Exception, url: URL) -> str:
    """What the server said, or why there is none; the password is blanked, should it be quoted."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S} s"
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    if found := re.search(r"FATAL: *(.+)", said):
        said = found[1]
    said = said.strip().splitlines()[0].rstrip(".")
    said = re.sub(r"^(<class '[^']*'>: |\[Errno -?\d+\] )", "", said)
    if "refused" in said or "Connect call failed" in said:
        said = "nothing answers there"
    if isinstance(url.password, str) and url.password:
        said = said.replace(url.password, "***")
    return said[:300]


def _advice(reason: str, url: URL) -> str:
    if re.search(r'password|authentication|role ".*" does not exist', reason):
        return "Correct user and password in the address; a password may also stand in ~/.pgpass."
    if re.search(r'database ".*" does not exist', reason):
        return (
            f"Make it: createdb --encoding UTF8 --template template0 {_place(url)} {url.database}."
        )
    return "Start it, or correct the address."


def _place(url: URL) -> str:
    return f"-h {url.host or 'localhost'} -p {url.port or 5432} -U {url.username or 'USER'}"
