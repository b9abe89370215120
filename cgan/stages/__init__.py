"""One thin module a DVC stage: read params, read inputs, call the core, write outputs."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from cgan.errors import CganError

TRAIN_DATA = Path("data/processed/train.safetensors")
HOLDOUT_DATA = Path("data/processed/holdout.safetensors")
JUDGE = Path("models/judge.safetensors")
GENERATOR = Path("models/generator.safetensors")
DISCRIMINATOR = Path("models/discriminator.safetensors")
RUN_REFERENCE = Path("models/mlflow_run.json")


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's `main`: log lines to stdout; a CganError ends it with its message alone.

    Fails when params.yaml or a module that the stage imported changed while it ran: DVC hashes them
    after the stage, so dvc.lock would pair the new text with results of the old (treeverse/dvc#11058).
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        before = _sources()
        stage()
        _refuse_changes(before)
    except CganError as error:
        sys.stdout.flush()
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)


def _sources() -> dict[Path, str]:
    """Hashes of params.yaml and of our whole package: a stage may yet import any of it."""
    files = [Path("params.yaml"), *Path(__file__).parents[1].rglob("*.py")]
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def _refuse_changes(before: dict[Path, str]) -> None:
    imported = {Path(str(m.__file__)) for m in sys.modules.values() if _is_ours(m)}
    used = {Path("params.yaml"), *imported}
    after = _sources()
    changed = sorted(f.name for f in used if before.get(f) != after.get(f))
    if changed:
        raise CganError(
            f"{', '.join(changed)} changed while the stage ran, so its results belong to the former "
            "text. Run `dvc repro` again; use a clone of its own to run and edit at once."
        )


def _is_ours(module: object) -> bool:
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    return bool(file) and (name == "cgan" or name.startswith("cgan."))
