"""Of a project: do drawings help a classifier, and may they be shared? A report, which goes to the run in
MLflow."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cgan.base.errors import CganError, DataError, TrackingError
from cgan.data.images import Images, image_digests, joined, load_images
from cgan.data.read import read_source
from cgan.drawing.generator import Generator
from cgan.params.sections import Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.progress import progress
from cgan.pipeline.project import (
    EVALUATION,
    EVIDENCE,
    GENERATOR,
    HOLDOUT_DATA,
    SHARING,
    TEST_DATA,
    TRAIN_DATA,
    TRAINING,
    home,
)
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.privacy.sharing import Sharing, sharing
from cgan.quality.evaluation import Evaluation
from cgan.utility.evidence import Evidence, evidence

MIN_HELD_OUT = 50  # images of each class; with fewer, folds test all that there are
DEFAULT_ROUNDS = 5  # folds, or seeds


def find_evidence(
    params: Params,
    say: Callable[[str], None],
    *,
    per_class: int | None = None,
    folds: int | None = None,
    seeds: int | None = None,
    test: Path | None = None,
    drawn: Path | None = None,
) -> None:
    """Ask `cgan.evidence` of the project's data; write and show the report. `test`: labelled images to test
    on; `drawn`: a folder of somebody else's drawings.

    Raises DataError or CganError where images, drawings or options do not fit.
    """
    if folds and (seeds or test or drawn):
        raise CganError(
            "--folds tests on all images, with a generator for each fold: leave out --seeds, --test and "
            "--drawn."
        )
    train = load_images(TRAIN_DATA)
    tested, tested_on = _tested_images(params, test, train, say)
    if not (folds or seeds or test or drawn) and int(tested.counts.min()) < MIN_HELD_OUT:
        folds = DEFAULT_ROUNDS
        say(
            f"A class of {tested_on} has only {tested.counts.min():,} images, so all are tested on, in "
            f"{folds} folds, each with its own generator; `--seeds {DEFAULT_ROUNDS}` is quicker."
        )
    if folds:
        parts = [load_images(path) for path in (HOLDOUT_DATA, TEST_DATA) if path.is_file()]
        tested, tested_on = joined(*filter(len, parts)), "all images"
    say(f"Tested on {tested_on}.")
    answer = evidence(
        train,
        tested,
        None if folds else _generator_or_drawings(params, drawn, train),
        folds=folds,
        seeds=seeds or DEFAULT_ROUNDS,
        per_class=per_class,
        recipe=params.train_judge,
        training=params.train,
        folder=home() / "evidence",
        device=params.train.device,
        seed=params.evaluate.seed,
        progress=functools.partial(progress, say=say),
        say=say,
    )
    _publish(answer, EVIDENCE, drawn, say)


def find_sharing(
    params: Params, drawn: Path | None, shadows: int, say: Callable[[str], None]
) -> None:
    """Ask `cgan.sharing` of the project's data; write and show the report. `drawn`: a folder of others'
    drawings. Raises DataError, ModelError or CganError where images, drawings or models do not fit."""
    train = load_images(TRAIN_DATA)
    answer = sharing(
        train,
        load_images(HOLDOUT_DATA),
        _generator_or_drawings(params, drawn, train),
        shadows=shadows,
        recipe=params.train_judge,
        evaluation=Evaluation.read(EVALUATION) if EVALUATION.is_file() else None,
        folder=home() / "sharing",
        device=params.train.device,
        seed=params.evaluate.seed,
        progress=functools.partial(progress, say=say),
        say=say,
    )
    _publish(answer, SHARING, drawn, say)


def _tested_images(
    params: Params, path: Path | None, train: Images, say: Callable[[str], None]
) -> tuple[Images, str]:
    """The images of `--test`, or the data's own test set, without those that are in the training part; or the
    hold-out. And what they are called."""
    if path:
        tested, name = read_labelled(path, params, train), str(path)
    elif TEST_DATA.is_file() and len(own := load_images(TEST_DATA)):  # empty where there is none
        tested, name = own, "the test set"
    else:
        return load_images(HOLDOUT_DATA), "the hold-out"
    new = ~np.isin(image_digests(tested.pixels), image_digests(train.pixels))
    if not new.any():
        raise DataError(
            f"{name}: all images are in the training part too. Give other images to test on."
        )
    if not new.all():
        say(f"{name}: {(~new).sum():,} images are in the training part too and are left out.")
    return tested.at(new), name


def _generator_or_drawings(params: Params, drawn: Path | None, train: Images) -> Generator | Images:
    if drawn:
        return read_labelled(drawn, params, train)
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


def _publish(
    answer: Evidence | Sharing, path: Path, drawn: Path | None, say: Callable[[str], None]
) -> None:
    """Write the answer as JSON and Markdown, and show it. Of `drawn`, somebody else's drawings, it has files
    of its own, so that what was found of the project's drawings stays."""
    if drawn:
        path = path.with_stem(f"{path.stem}-drawn")
        say(f"The drawings are those in {drawn}.")
    report, text = answer.report(), path.with_suffix(".md")
    report.write(path)
    say(report.as_text())
    say(f"{text} has all classes.")
    if TRAINING.is_file():
        try:
            with open_run(read_training(TRAINING), f"cgan {path.stem}") as run:
                run.log_files((path, text))
        except TrackingError as error:
            say(f"WARNING: {error}")
