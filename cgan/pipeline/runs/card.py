"""`cgan card`: a folder with a generator, its model card and drawings, for Hugging Face."""

import contextlib
from pathlib import Path
from typing import Any

from cgan.attacks import GIVES_AWAY
from cgan.drawing.card import model_card
from cgan.drawing.drawings import new_folder
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.evaluation import Evaluation
from cgan.files import read_json, write_text
from cgan.model.model_file import save_generator
from cgan.pipeline.tracking.run import TrainingRecord, read_training
from cgan.project import (
    CARD,
    EVALUATION,
    GENERATOR,
    GRID,
    SHARING,
    SHARING_TEXT,
    TRAINING,
)
from cgan.quality.table import stated_evaluation


def write_card_folder(
    generator: Generator, folder: Path, *, training_images: bool = False, leaks: bool = False
) -> str:
    """Write the folder → what it holds, in words.

    Raises CganError where it holds something already; where the generator's file is its training images,
    which `training_images` allows; and where `cgan sharing` found that it gives images away, which `leaks`
    allows.
    """
    holds_images = generator.holds_training_images
    if holds_images and not training_images:
        raise CganError(
            f"{folder}: not written. {generator.caution} If they may be published, add "
            "--publish-training-images."
        )
    found = _sharing(generator)
    if found.get("verdict") == GIVES_AWAY and not (leaks or holds_images):
        raise CganError(
            f"{folder}: not written. {SHARING_TEXT}: {found['sentence']} To publish it all the same, add "
            "--publish-leaks."
        )
    evaluation, training = known_evaluation(generator)
    labels = list(range(min(generator.classes, 10)))
    with new_folder(folder) as new:
        save_generator(new / GENERATOR.name, generator.model, generator.facts)
        generator.picture(labels, rows=4).save(new / GRID.name)
        write_text(
            new / CARD.name,
            model_card(generator.facts, evaluation, training, GRID.name, found.get("sentence", "")),
        )
    note = "" if evaluation else "; this generator has no evaluation, so the card has no numbers"
    return f"{folder}: {CARD.name}, {GENERATOR.name}, {GRID.name}{note}"


def _sharing(generator: Generator) -> dict[str, Any]:
    """The report of `cgan sharing` on these weights; empty where there is none."""
    if SHARING.is_file():
        found: dict[str, Any] = read_json(SHARING)
        if found.get("generator_digest") == generator.facts["digest"]:
            return found
    return {}


def known_evaluation(generator: Generator) -> tuple[Evaluation | None, TrainingRecord]:
    """A generator's evaluation, and the run that trained it: as its file, this project or MLflow has them;
    None and empty where none of them is about these weights."""
    evaluation, training = stated_evaluation(generator.facts), TrainingRecord()
    with contextlib.suppress(CganError):
        if not evaluation and Path(generator.source).is_file():
            evaluation, training = Evaluation.read(EVALUATION), read_training(TRAINING)
        elif not evaluation:  # where only what drawing needs is installed, this cannot be imported
            from cgan.pipeline.runs.recorded_run import read_run

            evaluation, training = read_run(generator.source)
    if evaluation and evaluation.is_of(generator.facts):
        return evaluation, training
    return None, {}
