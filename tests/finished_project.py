"""A project in which everything has run, in a second: real stages, but for a made-up training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cgan.files import write_bytes, write_json, write_text
from cgan.images import load_images
from cgan.model.model_file import save_generator
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import encode_png, image_grid
from cgan.params.sections import flatten
from cgan.pictures.plots import curves_html, training_curves
from cgan.pipeline.params_file import load_params
from cgan.project import (
    CSV,
    CURVES_HTML,
    GENERATOR,
    LOSSES,
    PREVIEWS,
    PROBES,
    RUN_LOCATION,
    SOURCE_FOLDER,
    TRAIN_DATA,
    TRAINING,
)
from cgan.quality import estimates
from cgan.stages import evaluate, preprocess, train_judge, validate
from cgan.training.records import read_records
from cgan.training.state import HISTORY_COLUMNS, PROBE_COLUMNS

STEPS = (0, 5, 10)


MADE: dict[tuple[bytes, bytes, str], dict[Path, bytes]] = {}


def finish(csv: Path, reference: dict[str, Any] | None = None, **facts: Any) -> None:
    """Everything of a run, of this CSV, in the working directory, which has a params.yaml. Of equal data,
    params and facts it is made once, as it takes seconds."""
    made_of = csv.read_bytes(), Path("params.yaml").read_bytes(), repr((reference, facts))
    if made_of not in MADE:
        write_bytes(CSV, csv.read_bytes())
        validate.main()
        preprocess.main()
        train_judge.main()
        pretend_training(reference or {}, facts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(estimates, "REPLICATES", 20)  # they take most of an evaluation
            evaluate.main()
        files = [path for path in Path().rglob("*") if path.is_file()]
        MADE[made_of] = {path: path.read_bytes() for path in files}
    for path, content in MADE[made_of].items():
        write_bytes(path, content)


def finish_uneven(**facts: Any) -> None:
    """Of the images of tests/uneven.py, in the working directory of `uneven_project`."""
    finish(Path("inbox/digits.csv"), **facts)


def pretend_training(reference: dict[str, Any], facts: dict[str, Any]) -> None:
    data = load_images(TRAIN_DATA)
    channels, height, width = data.shape
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", data.classes, channels, height, width, 4, 4))
    made = {
        "data_sha256": data.source_sha256,
        "data_digest": data.digest,
        "class_names": data.class_names if data.is_named else None,
        "params": load_params().train.model_dump(),
    }
    save_generator(GENERATOR, network, made | facts)
    for step in STEPS:
        picture = image_grid(
            data.tensors.pixels[step : step + 6].view(2, 3, channels, height, width)
        )
        write_bytes(PREVIEWS / f"step-{step:06d}.png", encode_png(picture))
    for path, names in ((LOSSES, HISTORY_COLUMNS), (PROBES, PROBE_COLUMNS)):
        columns = [name.removeprefix("progress/") for name in names]
        rows = [[step, *(0.1 * step + n for n in range(len(columns) - 1))] for step in STEPS]
        lines = [columns, *(map(str, row) for row in rows)]
        write_text(path, "".join(",".join(line) + "\n" for line in lines))
    figures = [
        figure for path in (LOSSES, PROBES) for figure in training_curves(read_records(path))
    ]
    write_text(CURVES_HTML, curves_html(figures))
    write_bytes(SOURCE_FOLDER / "params.yaml", Path("params.yaml").read_bytes())
    run = {"run_key": "k", "run_name": "a run", "experiment": "cgan", "run_id": "0" * 32}
    data_facts = {"name": "file: digits.csv", "path": str(CSV), "sha256": made["data_sha256"]}
    about = {
        **{"began_ms": 1_000_000, "ended_ms": 1_010_000, "numbers": {"time/training_s": 2.5}},
        **{"params": flatten(load_params()), "dataset": data_facts},
        "tags": {"cgan.fingerprint": "f" * 16, "data": "digits"},
    }
    write_json(TRAINING, {**run, **about, **reference})
    write_json(RUN_LOCATION, {**run, **reference})


def page_data(page: str) -> dict[str, Any]:
    """What stands in a page as JSON."""
    start = page.index('id="page-data">') + len('id="page-data">')
    found: dict[str, Any] = json.loads(page[start : page.index("</script>", start)])
    return found
