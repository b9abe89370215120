"""Do a project's drawings help a classifier, and may they be shared? Reports, which go to the run in MLflow,
too."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from typer import echo

from cgan.base.errors import DataError, TrackingError
from cgan.data.arrays import image_digests
from cgan.data.images import Images, load_images
from cgan.data.read import read_source
from cgan.drawing.generator import Generator
from cgan.params.sections import Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.progress import progress
from cgan.pipeline.project import GENERATOR, HOLDOUT_DATA, TEST_DATA, TRAINING, home
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.privacy.sharing import Sharing
from cgan.utility.evidence import Evidence


def run_and_report(
    question: Callable[..., Evidence | Sharing],
    path: Path,
    images: tuple[Images, Images, Generator | Images | None],
    params: Params,
    drawings: Path | None,
    **options: Any,
) -> None:
    """Ask `cgan.evidence` or `cgan.sharing`; show the answer, and write it as JSON, to `path`, and Markdown.
    For `drawings`, a folder of somebody else's, the files have names of their own."""
    answer = question(
        *images,
        recipe=params.train_judge,
        folder=home() / path.stem,
        device=params.train.device,
        seed=params.evaluate.seed,
        progress=partial(progress, say=echo),
        say=echo,
        **options,
    )
    if drawings:
        path = path.with_stem(f"{path.stem}-drawn")
        echo(f"The drawings are those in {drawings}.")
    report, text = answer.report(), path.with_suffix(".md")
    report.write(path)
    echo(report.as_text())
    echo(f"{text} has all classes.")
    if TRAINING.is_file():
        try:
            with open_run(read_training(TRAINING), f"cgan {path.stem}") as run:
                run.log_files((path, text))
        except TrackingError as error:
            echo(f"WARNING: {error}")


def tested_images(params: Params, path: Path | None, train: Images) -> tuple[Images, str]:
    """The images of `--test`, or the data's own test set, without those that are in the training part; or the
    hold-out. And what they are called."""
    if path:
        tested, name = read_labelled(path, params, train), str(path)
    elif len(own := load_images(TEST_DATA)):  # empty where there is none
        tested, name = own, "the test set"
    else:
        return load_images(HOLDOUT_DATA), "the hold-out"
    new = ~np.isin(image_digests(tested.pixels), image_digests(train.pixels))
    if not new.any():
        raise DataError(f"{name}: all images are in the training part too. Give others.")
    if not new.all():
        echo(f"{name}: {(~new).sum():,} images are in the training part too and are left out.")
    return tested.at(new), name


def generator_or_drawings(
    params: Params, drawings: Path | None, train: Images
) -> Generator | Images:
    """The project's generator, or somebody else's `drawings`, a folder."""
    if drawings:
        return read_labelled(drawings, params, train)
    inputs = Inputs.load(params.train.device)
    return Generator(inputs.model, inputs.facts, GENERATOR)


def read_labelled(path: Path, params: Params, data: Images) -> Images:
    """The images of a CSV, archive or folder, with the labels that `data` has for their classes. A folder may
    lack some. Raises DataError where shape or classes are others."""
    shape = dict(zip(("channels", "height", "width"), data.shape, strict=True))
    expected = params.validation.model_copy(update={**shape, "classes": None, "class_names": None})
    source = read_source(path, params.data, expected)
    labels = np.array(source.class_names)[source.labels] if source.is_named else source.labels
    try:
        return replace(source, labels=labels, class_names=data.class_names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
