"""`cgan card`: a folder with a generator, its model card and drawings, for Hugging Face."""

from pathlib import Path
from typing import Any

from cgan.base.errors import CganError
from cgan.base.files import read_json, write_text
from cgan.drawing.card import model_card
from cgan.drawing.drawings import new_folder
from cgan.drawing.generator import Generator
from cgan.models.model_file import save_generator
from cgan.pipeline.project import CARD, GENERATOR, GRID, SHARING
from cgan.pipeline.registry.runs import known_evaluation
from cgan.privacy import GIVES_AWAY


def write_card_folder(generator: Generator, folder: Path, *, anyway: bool = False) -> str:
    """Write the folder → what it holds, in words.

    Raises CganError where it holds something already; and, unless `anyway`, where the generator's file is its
    training images, or `cgan sharing` found that its drawings give images away.
    """
    found = _sharing(generator)
    reason = generator.model.kind.caution
    if not reason and found.get("verdict") == GIVES_AWAY:
        reason = found["sentence"]
    if reason and not anyway:
        raise CganError(
            f"{folder}: not written. {reason} If it may be published all the same, add --publish-anyway."
        )
    evaluation = known_evaluation(generator)
    card = model_card(generator.facts, evaluation, GRID.name, found.get("sentence", ""))
    with new_folder(folder) as new:
        save_generator(new / GENERATOR.name, generator.model, generator.facts)
        generator.picture(list(range(min(generator.classes, 10))), rows=4).save(new / GRID.name)
        write_text(new / CARD.name, card)
    note = "" if evaluation else "; this generator has no evaluation, so the card has no numbers"
    return f"{folder}: {CARD.name}, {GENERATOR.name}, {GRID.name}{note}"


def _sharing(generator: Generator) -> dict[str, Any]:
    """The report of `cgan sharing` on these weights; empty where there is none."""
    if SHARING.is_file():
        found: dict[str, Any] = read_json(SHARING)
        if found.get("generator_digest") == generator.facts["digest"]:
            return found
    return {}
