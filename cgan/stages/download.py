"""Stage download: the CSV, from the embedded sample, a local file or Kaggle."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from cgan.data.sources import fetch
from cgan.files import write_json
from cgan.params.reading import load_params
from cgan.stages.runner import run_stage

log = logging.getLogger(__name__)


def main() -> None:
    info = fetch(load_params().data, Path("data/raw/train.csv"))
    write_json("data/raw/source.json", asdict(info))
    log.info("%s rows from %s: %s", f"{info.rows:,}", info.source, info.origin)


if __name__ == "__main__":
    run_stage(main)
