"""`cgan sharing`: may the drawings be shared in place of the images? A report and a page, which go to the run
in MLflow."""

import base64
import functools
from collections.abc import Callable
from pathlib import Path

from cgan.attacks.sharing import Sharing
from cgan.disclosure import sharing
from cgan.drawing.generator import Generator
from cgan.files import require_writable
from cgan.images import load_images
from cgan.markdown import table
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_discriminator
from cgan.params.sections import Params
from cgan.pipeline.evidence.experiment import read_labelled
from cgan.pipeline.evidence.publish import publish
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.progress import progress as progress_of
from cgan.pipeline.registry.client import now
from cgan.project import (
    DISCRIMINATOR,
    GENERATOR,
    HOLDOUT_DATA,
    SHARING,
    SHARING_PAGE,
    SHARING_TEXT,
    TRAIN_DATA,
)
from cgan.verdict import Report

WHO, INSTEAD = "Who was in the training data", "A classifier trained on drawings alone"


def find_sharing(
    params: Params, drawn: Path | None, seeds: int, say: Callable[[str], None]
) -> Report:
    """Attack, train the classifiers, write and show the report. `drawn`: a folder of somebody else's
    drawings.

    Raises DataError, ModelError or CganError where images, drawings or models do not fit.
    """
    require_writable(SHARING)
    compute_deterministically()
    progress = functools.partial(progress_of, say=say)
    ask = functools.partial(
        sharing,
        seeds=seeds,
        recipe=params.train_judge,
        device=params.train.device,
        seed=params.evaluate.seed,
        progress=progress,
    )
    if drawn:
        train, held_out = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA)
        answer = ask(train, held_out, read_labelled(drawn, params, train))
    else:
        inputs = Inputs.load(params.train.device)
        generator = Generator(inputs.model, inputs.facts, GENERATOR)
        discriminator = None
        if DISCRIMINATOR.is_file():  # it is not shared with other machines
            found, made = load_discriminator(DISCRIMINATOR)
            same = made.get("data_digest") == inputs.facts["data_digest"]
            discriminator = found if same else None
        answer = ask(inputs.train, inputs.held_out, generator, discriminator=discriminator)
    report = report_on(answer)
    publish(
        report,
        (SHARING, SHARING_TEXT, SHARING_PAGE),
        "sharing.html",
        drawn,
        say,
        tables={WHO: answer.rows(), INSTEAD: answer.class_rows()},
        picture=base64.b64encode(answer.picture).decode(),
    )
    return report


def report_on(answer: Sharing) -> Report:
    rows = {WHO: answer.rows(), INSTEAD: answer.class_rows()}
    return Report(
        title="May the drawings be shared?",
        verdict=answer.verdict,
        summary=answer.sentence,
        reasons=answer.reasons,
        time=now(),
        facts=answer.as_json(),
        sections={title: table(head, body) for title, (head, *body) in rows.items()},
    )
