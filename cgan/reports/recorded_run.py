"""Which run of MLflow is meant: by its id, its name, an alias, or a model's address."""

from __future__ import annotations

import re

from cgan.errors import CganError
from cgan.registry.client import model_name, open_registry


def find_run_id(what: str) -> str:
    """The run of an id, of an alias, of `models:/NAME@ALIAS`, or the one with this name. Raises CganError."""
    if match := re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?", what):
        return match[1]
    version = re.fullmatch(r"models:/([\w.-]+)(?:@([^@/]+)|/(\d+))", what)
    with open_registry(version[1] if version else model_name()) as registry:
        alias = version[2] or version[3] if version else what
        number = int(alias) if version and version[3] else registry.aliases().get(alias)
        if number is not None:
            return registry.version(number).run_id
        experiments = [found.experiment_id for found in registry.client.search_experiments()]
        quote = '"' if "'" in what else "'"  # MLflow has no escapes
        query = f"attributes.run_name = {quote}{what}{quote}"
        runs = [] if quote in what else registry.client.search_runs(experiments, query)
    ids = [str(run.info.run_id) for run in runs[:10]]
    if len(ids) > 1:
        raise CganError(f"several runs are called {what!r}: {', '.join(ids)}. Give one of the ids.")
    if not ids:
        raise CganError(
            f"{what!r} names no run: expected its id or name in MLflow, an alias such as `champion`, or "
            "`models:/NAME@ALIAS`. `cgan registry list` shows what there is."
        )
    return ids[0]
