"""Models in MLflow's runs and registry."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cgan.errors import ModelError


@contextlib.contextmanager
def generator_file(uri: str) -> Iterator[Path]:
    """A local copy, while the context lasts, of the generator that an MLflow URI leads to.

    `runs:/<run id>/generator`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact's URI.
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store has no such
    thing, it holds no generator, or the store is away.
    """
    from cgan.journal import project_root
    from cgan.mlflow_delivery import store_uri, without_credentials

    store = store_uri(project_root())
    shown = without_credentials(store)
    advice = (
        "Expected `runs:/<run id>/generator` or `models:/<name>@<alias>`; set MLFLOW_TRACKING_URI if "
        "the store is another."
    )
    sqlite = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:///") and not sqlite.is_file():
        # MLflow would make an empty one.
        raise ModelError(f"{uri}: there is no MLflow store {shown}. {advice}")
    with _store(store), tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        from mlflow.artifacts import download_artifacts

        try:
            found = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:
            # Besides MlflowException the stores let through what their clients raise.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"{uri}: the MLflow store {shown} cannot give it ({reason}). {advice}"
            ) from None
        files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: holds no generator.safetensors. {advice}")
        yield files[0]


@contextlib.contextmanager
def _store(uri: str) -> Iterator[None]:
    """MLflow set to a store, without long waits; models:/ addresses heed the global setting only."""
    from cgan.mlflow_delivery import client_settings

    added = {
        name: value
        for name, value in client_settings().items()
        if name.startswith("MLFLOW_") and name not in os.environ
    }
    os.environ.update(added)
    import mlflow

    is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    before = mlflow.get_tracking_uri() if is_set else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        for name in added:
            os.environ.pop(name, None)
