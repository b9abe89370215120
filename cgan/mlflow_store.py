"""Reading the project's MLflow store: nothing is made there, and nobody waits long."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError, TrackingError
from cgan.mlflow_delivery import client_settings, store_uri, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def open_store(root: Path, timeout_s: int = 10) -> Iterator[MlflowClient]:
    """A client of the store of the project in `root`, or of MLFLOW_TRACKING_URI.

    Whatever the store raises inside the block becomes a TrackingError. Raises one also when a sqlite
    store doesn't exist: MLflow would make an empty one.
    """
    uri = store_uri(root)
    file = sqlite_file(uri)
    if file and not file.is_file():
        raise TrackingError(f"there is no MLflow store {file} yet: the first training makes it.")
    settings: dict[str, Any] = {**client_settings(), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s)}
    added = {
        name: value
        for name, value in settings.items()
        if name.startswith("MLFLOW_") and name not in os.environ
    }
    os.environ.update(added)
    try:
        from mlflow import MlflowClient

        yield MlflowClient(uri)
    except CganError:
        raise
    except Exception as error:
        # Besides MlflowException, what requests and SQLAlchemy raise.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise TrackingError(f"MLflow at {without_credentials(uri)}: {reason}") from None
    finally:
        for name in added:
            os.environ.pop(name, None)
