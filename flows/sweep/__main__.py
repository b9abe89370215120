"""A sweep of trainings: `python -m flows.sweep --trials 20 --parallel 4`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cgan.errors import CganError
from cgan.params.reading import load_params
from cgan.tracking.store import store_uri
from flows.sweep import space
from flows.sweep.here import Here
from flows.sweep.pages import Pages
from flows.sweep.search import Search, facts_of, open_study


def sweep(base: Path, trials: int | None, parallel: int | None, name: str | None) -> None:
    params = load_params()
    space.check_combinations(params)
    facts, digest = facts_of(base, params)
    name = name or f"sweep-{digest}"
    study = open_study(base, name, params)
    uri = store_uri(base)
    pages = Pages(uri, base)
    searched = {key: each.model_dump(exclude_defaults=True) for key, each in params.sweep.space.items()}
    parent = pages.parent(name, name, {"objective": facts.objective, **searched})
    search = Search(study, params, facts, Here(base, facts.commit, uri), pages, parent)
    search.run(trials or params.sweep.trials, parallel or params.sweep.parallel, print)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.sweep")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--parallel", type=int)
    parser.add_argument("--name")
    asked = parser.parse_args(arguments)
    try:
        sweep(Path.cwd(), asked.trials, asked.parallel, asked.name)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
