"""The page of a run: the generator to play with, and how good its drawings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgan.drawing.generator import Generator
from cgan.errors import DataError
from cgan.evaluation import Evaluation
from cgan.files import write_text
from cgan.images import SPLITS, Images
from cgan.page.assemble import GALLERY_SCRIPTS, PLAY_SCRIPTS, document, play_data, runs_in_page
from cgan.page.classes import (
    DOUBTFUL,
    GOOD,
    MIN_DIVERSITY,
    MIN_HELD_OUT,
    POOR,
    frequent_mistakes,
    judged_classes,
)
from cgan.page.data_facts import rows_of, suspects_facts
from cgan.page.drawn_facts import MAX_CARDS, drawn_facts
from cgan.page.tiles import preview_tile
from cgan.params.sections import GateParams, TrainChoices
from cgan.pictures.plots import svg_of, training_curves
from cgan.quality.diversity import MAX_OTHERS
from cgan.quality.evaluate import require_kind
from cgan.quality.judge import Judge, require_judge_of
from cgan.quality.table import quality_line, weakest_classes
from cgan.settings import as_keywords

if TYPE_CHECKING:
    import pandas as pd

    from cgan.fitting import Run

STATES = (POOR, DOUBTFUL, GOOD)
MAX_MATRIX_CLASSES = 40  # with more, only the most frequent mistakes are shown


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a page. It leaves out what is not given.

    `losses`, `probes`, `previews` (PNG by step), `seconds`: of the training. `limits`: the gate's. `data`:
    all images, `splits` of which say what was trained on (train) and held out (val); with `judge`, which has
    learnt from these, the page shows drawings beside the training images that they resemble, and labels that
    look wrong. `remarks`: warnings and notes on the data; `tested`: images of its test set. `origin`: what is
    known of a project's run: `run_name`, `run_id`, `commit`, `dirty`, `sha256` of the generator's file.
    """

    generator: Generator
    evaluation: Evaluation
    title: str = "cgan"
    losses: pd.DataFrame
    probes: pd.DataFrame
    previews: Mapping[int, bytes]
    seconds: float | None = None
    limits: GateParams
    data: Images | None = None
    judge: Judge | None = None
    remarks: Sequence[str] = ()
    tested: int = 0
    origin: Mapping[str, Any] | None = None


@as_keywords()
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

    `run`: of `cgan.fit`; `evaluation`: of its generator, by `cgan.evaluate`. With `train` and `held_out`, the
    images of both, the page has a section on the data; with a `judge` that was trained on `train`, too, one
    on random and worst drawings beside the training images that they resemble, and one on labels that look
    wrong. `title`: its heading.

    Raises DataError where the evaluation is about another generator, one part of the images is missing, or
    images or judge are of other classes or of another size.
    """
    if (train is None) != (held_out is None):
        raise DataError(
            "write_page: expected both `train` and `held_out`, found one. Give both, or none."
        )
    if not evaluation.is_of(run.generator.facts):
        raise DataError(
            "write_page: the evaluation is about another generator than the run's. Evaluate it: "
            "`cgan.evaluate(run.generator, train, held_out)`."
        )
    if train is not None and held_out is not None:
        require_kind(run.generator.model, train=train, held_out=held_out)
        if judge:
            require_judge_of(judge, train)
    contents = Contents(
        generator=run.generator,
        evaluation=evaluation,
        title=title,
        losses=run.history,
        probes=run.probes,
        previews=run.previews,
        seconds=run.seconds,
        limits=GateParams(),
        data=_both_parts(train, held_out) if train and held_out else None,
        judge=judge,
        remarks=held_out.notes if held_out else (),
    )
    write_text(path, render_page(contents))


def _both_parts(train: Images, held_out: Images) -> Images:
    """The images of both parts, with `splits` that say which is which."""
    groups = None
    if train.groups is not None and held_out.groups is not None:
        groups = np.concatenate([train.groups, held_out.groups])
    return Images(
        np.concatenate([train.pixels, held_out.pixels]),
        np.concatenate([train.labels, held_out.labels]),
        train.class_names,
        groups,
        splits=np.repeat(
            [SPLITS.index("train"), SPLITS.index("val")], [len(train), len(held_out)]
        ).astype(np.uint8),
    )


def render_page(contents: Contents) -> str:
    """The page, as HTML."""
    plays = runs_in_page(contents.generator)
    shown = page_facts(contents)
    previews = [
        {"step": step, "src": preview_tile(png)} for step, png in sorted(contents.previews.items())
    ]
    data = play_data(contents.generator) | {"previews": previews}
    scripts = (*(PLAY_SCRIPTS if plays else GALLERY_SCRIPTS), "run.js")
    return document("run.html", scripts, data, run=contents, plays=plays, **shown)


def page_facts(contents: Contents) -> dict[str, Any]:
    """What the page shows besides its contents."""
    generator, evaluation, data = contents.generator, contents.evaluation, contents.data
    judge, trained = contents.judge, not generator.holds_training_images
    classes = judged_classes(
        evaluation, data.counts.tolist() if data else None, contents.limits, trained
    )
    weakest = [label for label, _ in weakest_classes(evaluation)]
    rank = {label: number for number, label in enumerate(weakest)}
    by_weakness = sorted(classes, key=lambda row: rank.get(row.label, len(rank)))
    states = {state: [row for row in by_weakness if row.state == state] for state in STATES}
    worst_first = [row for rows in states.values() for row in rows]
    advice: dict[str, list[int]] = {}
    for row in worst_first:
        if row.advice:
            advice.setdefault(row.advice, []).append(row.label)
    cards = worst_first[:MAX_CARDS]
    labels = [row.label for row in cards]
    curves = training_curves(contents.losses) + training_curves(contents.probes)
    return {
        "names": generator.class_names,
        "verdict": quality_line(evaluation, contents.seconds),
        "trained": trained,
        "curves": [svg_of(figure) for figure in curves],
        "classes": classes,
        "states": {state: len(group) for state, group in states.items()},
        "cards": cards,
        "advice": advice,
        "weakest": weakest[0] if weakest else None,
        "judge_accuracy": evaluation.score("conditional_accuracy").real,
        "others": MAX_OTHERS,
        "few_held_out": MIN_HELD_OUT,
        "less_diverse": MIN_DIVERSITY,
        "matrix": evaluation.confusion if len(classes) <= MAX_MATRIX_CLASSES else [],
        "mistakes": frequent_mistakes(evaluation),
        "drawn": drawn_facts(generator.model, evaluation.context["seed"], labels, data, judge),
        "parts": {part: len(rows_of(data, part)) for part in SPLITS} if data else {},
        "suspects": suspects_facts(data, judge) if data and judge else None,
        "params": changed_params(generator.facts.get("params") or {}),
    }


def changed_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Of the params of a training those that were chosen for the data or changed: others are defaults."""
    defaults = TrainChoices().model_dump()
    return {key: value for key, value in params.items() if value != defaults.get(key)}
