"""Models in MLflow's registry and runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cgan.errors import ModelError


def local_generator_path(uri: str) -> Path:
    """A local copy of the generator that an MLflow URI leads to.

    `runs:/<id>/model`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact URI of the store.
    Raises ModelError when MLflow has no such thing or it holds no generator.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    folder = tempfile.mkdtemp(prefix="cgan-")
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ModelError(
            f"{uri}: MLflow at {mlflow.get_tracking_uri()} cannot give it ({reason}). Expected "
            "`runs:/<run id>/model` or `models:/<name>@<alias>`; set MLFLOW_TRACKING_URI if the "
            "store is another."
        ) from None
    files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
    if not files:
        raise ModelError(f"{uri}: holds no generator.safetensors. Is it a model that cgan logged?")
    return files[0]
