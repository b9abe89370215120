"""One thin module a DVC stage: read params, read inputs, call the core, write outputs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from cgan.errors import CganError


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's `main`: log lines to stdout; a CganError ends it with its message alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        stage()
    except CganError as error:
        sys.stdout.flush()
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
