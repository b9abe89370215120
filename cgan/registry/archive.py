"""Generators that MLflow keeps, as files."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from cgan.errors import CganError, ModelError
from cgan.files import read_json
from cgan.metric import Report
from cgan.project import EVALUATION
from cgan.registry.client import Registry, model_name, open_registry
from cgan.tracking.store import reason_of


def address_of(alias: str) -> str:
    """The address of the version of the project's model that is champion, challenger or previous. Raises
    ModelError where there is none."""
    with open_registry(model_name()) as registry:
        number = registry.aliases().get(alias)
        if number is None:
            raise ModelError(
                f"`{registry.model}` has no {alias} in {registry.shown}. `cgan registry list` shows its "
                "versions; `cgan gate` makes the first champion."
            )
        return f"models:/{registry.model}/{number}"


@contextlib.contextmanager
def generator_file(uri: str) -> Iterator[Path]:
    """A local copy, while the context lasts, of the generator that an MLflow URI leads to.

    `runs:/<run id>/generator`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact's URI.
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store cannot give it.
    """
    advice = (
        "Expected `runs:/ID/generator` or `models:/NAME@ALIAS` in the store of MLFLOW_TRACKING_URI."
    )
    if ".." in re.split(r"[\\/]", unquote(unquote(uri))):
        raise ModelError(f"{uri[:200]}: leads outside. {advice}")
    with open_registry() as registry, downloaded(registry, uri, advice) as found:
        files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: holds no generator.safetensors. {advice}")
        yield files[0]


@contextlib.contextmanager
def downloaded(registry: Registry, uri: str, advice: str) -> Iterator[Path]:
    """A local copy of a file or folder of the store."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        try:
            found = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:  # the stores let through what their clients raise
            raise ModelError(
                f"{uri}: the MLflow store {registry.shown} cannot give it ({reason_of(error)}). {advice}"
            ) from None
        yield found


def evaluation_of(registry: Registry, run_id: str) -> Report:
    """Of the generator that a run trained; empty where the run has none, or one that cannot be read."""
    with contextlib.suppress(CganError):
        address = f"runs:/{run_id}/{EVALUATION}"
        with downloaded(registry, address, "") as path:
            return read_json(path)
    return {}


def text_of(registry: Registry, address: str) -> str | None:
    """The text of a file of the store; None where it has none."""
    with contextlib.suppress(CganError, UnicodeError), downloaded(registry, address, "") as path:
        return path.read_text(encoding="utf-8")
    return None
