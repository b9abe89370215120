"""Stage record: what evaluate, render and page drew of a training, on the page of its MLflow run.

It depends on the file that names the run. So a new run gets pictures also where DVC restored them from its
cache, and render did not run.
"""

from __future__ import annotations

import logging

from cgan.files import write_json
from cgan.project import (
    CLASS_INTERPOLATION,
    CONFUSION,
    CURVES,
    DIAGRAMS,
    FILM,
    GRID,
    LATENT_INTERPOLATION,
    NINE,
    RECORDED,
    RUN_PAGE,
    RUN_REFERENCE,
    STRIP,
)
from cgan.run.lifecycle import reopen
from cgan.stages.runner import run_stage

# MLflow compares two runs' files where they lie at the top, not in folders: what is looked at first is there.
FILES = {
    "": (STRIP, GRID, FILM, CONFUSION, RUN_PAGE),
    "samples": (NINE, LATENT_INTERPOLATION, CLASS_INTERPOLATION),
    "reports": (*CURVES, *DIAGRAMS),
}

log = logging.getLogger(__name__)


def main() -> None:
    files = [(path, place) for place, paths in FILES.items() for path in paths]
    with reopen(RUN_REFERENCE) as tracker:
        for path, place in files:
            tracker.log_file(path, place)
    write_json(RECORDED, [str(path) for path, _ in files])
    log.info("%d pictures and pages are on the run's page.", len(files))


if __name__ == "__main__":
    run_stage(main)
