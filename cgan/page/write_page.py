"""The page of a run in memory. The stage page has its curves from the stage render, and so no matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cgan.base.errors import DataError
from cgan.base.files import write_text
from cgan.base.settings import python_call
from cgan.data.images import Images
from cgan.drawing.plots import curves_html, training_curves
from cgan.page.image_facts import both_parts
from cgan.page.run_page import Contents, render_page
from cgan.params.sections import GateParams
from cgan.quality.evaluate import require_matching
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import Judge, require_judge_of

if TYPE_CHECKING:
    from cgan.training.fit import Run


@python_call
def write_page(
    path: Path | str,
    run: Run,
    evaluation: Evaluation,
    *,
    train: Images | None = None,
    held_out: Images | None = None,
    judge: Judge | None = None,
    title: str = "cgan",
) -> None:
    """Write the page of a run: one HTML file that any browser opens, offline. The generator draws in it.

    >>> evaluation = cgan.evaluate(run.generator, train, held_out)
    >>> cgan.write_page("run.html", run, evaluation, train=train, held_out=held_out)

    With `train` and `held_out` it has a section on the data; with a `judge` that was trained on `train`, too,
    one on drawings beside the training images that they resemble, and one on labels that look wrong. Raises
    DataError where the evaluation is of another generator, or images or judge of other classes or sizes.
    """
    if not evaluation.is_about(run.generator.facts):
        raise DataError(
            "write_page: the evaluation is about another generator than the run's. Evaluate it: "
            "`cgan.evaluate(run.generator, train, held_out)`."
        )
    if train is not None and held_out is not None:
        require_matching(run.generator.model, train, held_out)
        if judge:
            require_judge_of(judge, train)
    losses, probes = (table.to_dict("records") for table in (run.history, run.probes))
    contents = Contents(
        generator=run.generator,
        evaluation=evaluation,
        title=title,
        curves=curves_html(training_curves(losses) + training_curves(probes)),
        previews=run.previews,
        seconds=run.seconds,
        limits=GateParams(),
        data=both_parts(train, held_out) if train and held_out else None,
        judge=judge,
        remarks=[note for part in (train, held_out) if part for note in part.notes],
    )
    write_text(path, render_page(contents))
