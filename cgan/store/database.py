"""Does a database server let us in? Asked before MLflow or Prefect are: they try for minutes."""

from __future__ import annotations

from cgan.errors import TrackingError
from cgan.store.address import STORE, is_database, with_driver, without_credentials

CONNECT_S = 5


def require_database(uri: str, variable: str = STORE) -> None:
    """Raises TrackingError where `uri` leads to a database server that cannot be used now, with the driver's
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
        raise TrackingError(
            f"{variable}: connecting to {without_credentials(uri)} failed: "
            f"{said.replace(password, '***') if password else said}"
        ) from None
