"""A job on this machine: a process with a checkout of its own, and without a server.

python -m flows.sweep.here '[PROJECT, COMMIT, NAME, OVERRIDES, STAGES, TAGS]'
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
from cgan.tracking.records import count_waiting, folder_of
from cgan.tracking.runs import flush_one
from flows.checkout import checkout, environment, share_data
from flows.dvc import NUMBERS, Repro, run_own


def main() -> None:
    project, commit, name, overrides, stages, tags = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    base = Path(project)
    try:
        with checkout(base, commit, name) as folder:
            os.environ.update(environment(base, folder))
            os.chdir(folder)
            set_params(overrides)
            share_data(base, folder)
            with contextlib.closing(Repro(context=tags, tags=tags)) as repro:
                for stage in stages:
                    repro.stage(stage, _say)
            run_own(NUMBERS, _say)
            records = folder_of(read_json(RUN_REFERENCE)["run_key"])
            if count_waiting(records):  # the sweep looks in MLflow for what came of it
                _say(flush_one(folder, records))
    except CganError as error:
        sys.exit(f"Error: {error}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
