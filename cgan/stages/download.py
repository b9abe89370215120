"""Stage download: a CSV or pictures, from the embedded sample, a local file or Kaggle."""

from cgan.base.files import write_json
from cgan.data.read import fetch
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import CSV, DATA_SOURCE, PICTURES
from cgan.stages.runner import log, run_stage


def main() -> None:
    info = fetch(load_params().data, CSV, PICTURES)
    write_json(DATA_SOURCE, info)
    log.info("%s images from %s: %s", f"{info['rows']:,}", info["source"], info["origin"])


if __name__ == "__main__":
    run_stage(main)
