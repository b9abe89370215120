"""A job on this machine: a process with a checkout of its own, and without a server.

python -m flows.sweep.here '[PROJECT, COMMIT, NAME, OVERRIDES, TAGS]'
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.editing import set_params
from cgan.project import RUN_REFERENCE
from cgan.run.follower import flush_one
from cgan.run.lifecycle import made_for
from cgan.run.records import count_waiting, folder_of
from flows.checkout import checkout, environment, share_data
from flows.dvc import NUMBERS, Repro, read_stages, run_own


def main() -> None:
    project, commit, name, overrides, tags = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    base = Path(project)
    try:
        with checkout(base, commit, name) as folder:
            os.environ.update(environment(base, folder))
            os.chdir(folder)
            set_params(overrides)
            share_data(base, folder)
            _run_stages(tags)
    except CganError as error:
        sys.exit(f"Error: {error}")


def _run_stages(tags: dict[str, str]) -> None:
    """As in the flow of a pool's run. Raises CganError when one fails."""
    names = [stage.name for stage in read_stages()]
    names = names[: names.index("evaluate") + 1]
    env = {"MLFLOW_RUN_CONTEXT": json.dumps(tags)}
    with contextlib.closing(Repro(names, stops={"train"}, env=env)) as repro:
        for name in names:
            repro.stage(name, _say)
            # A training that DVC brings back from its cache has no MLflow run of its own.
            if name == "train" and not made_for(tags, RUN_REFERENCE):
                repro.stage(name, _say, force=True)
    run_own(NUMBERS, _say)
    records = folder_of(read_json(RUN_REFERENCE)["run_key"])
    if count_waiting(records):  # the sweep looks in MLflow for what came of it
        _say(flush_one(Path.cwd(), records))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
