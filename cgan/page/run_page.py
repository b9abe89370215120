"""The page of a run: the generator to play with, and all there is to believe."""

from __future__ import annotations

import itertools
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
from cgan.page.assemble import (
    GALLERY_SCRIPTS,
    NUMBERS_SCRIPTS,
    PLAY_SCRIPTS,
    document,
    play_data,
    runs_in_page,
)
from cgan.page.charts import chart_library
from cgan.page.class_states import (
    DOUBTFUL,
    DOUBTFUL_EXCESS,
    GOOD,
    MIN_DIVERSITY,
    MIN_HELD_OUT,
    POOR,
    POOR_EXCESS,
    add_states,
)
from cgan.page.data_facts import MAX_JUDGED_PIXELS, data_facts
from cgan.page.drawn_facts import MAX_CARDS, drawn_facts
from cgan.page.run_facts import class_facts, confusion_facts, curve
from cgan.page.tiles import preview_frames
from cgan.params.sections import GateParams
from cgan.quality.distances import MIN_DISTANCE_IMAGES
from cgan.quality.diversity import MAX_OTHERS
from cgan.quality.evaluate import require_kind
from cgan.quality.judge import Judge, require_judge_of
from cgan.quality.table import fewer_judged, quality_line, weaknesses

if TYPE_CHECKING:
    import pandas as pd

    from cgan.fitting import Run

STATES = (POOR, DOUBTFUL, GOOD)
# The gate's limits that the page shows: params of the stage page, in dvc.yaml too.
SHOWN_LIMITS = {"min_worst_class_accuracy", "min_worst_class_diversity", "min_judge_accuracy"}
# Facts of the run that the scripts show; the template has the rest.
SCRIPT_FACTS = ("previews", "losses", "probes", "classes", "confusion")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a page. It leaves out what is not given.

    `losses`, `probes`, `previews` (PNG by step), `seconds`: of the training. `data`: all images, `splits` of
    which say what was trained on (train) and held out (val); with `judge`, which has learnt from these, the
    page shows drawings beside the training images that they resemble, and labels that look wrong. `warnings`
    and `notes`: on the data; `tested`: images of its test set. `settings`, `lineage`: `params_facts`,
    `lineage_facts`. `samples`: drawings that were to be judged. `cache`: a folder for the chart library.
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
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    tested: int = 0
    settings: dict[str, Any] | None = None
    lineage: dict[str, Any] | None = None
    samples: int = 0
    cache: Path | None = None


def write_page(
    path: Path | str,
    run: Run,
    evaluation: Evaluation,
    *,
    train: Images | None = None,
    held_out: Images | None = None,
    judge: Judge | None = None,
    title: str = "cgan",
    cache: Path | None = None,
) -> None:
    """Write the page of a run: one HTML file that any browser opens, offline. The generator draws in it.

    `run`: of `cgan.fit`; `evaluation`: of its generator, by `cgan.evaluate`. With `train` and `held_out`, the
    images of both, the page has a section on the data; with a `judge` that was trained on `train`, too, one
    on random and worst drawings beside the training images that they resemble, and one on labels that look
    wrong. `title`: its heading. `cache`: a folder that keeps the chart library, which takes seconds to put
    together.

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
        cache=cache,
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
        notes=held_out.notes,
    )


def render_page(contents: Contents) -> str:
    """The page, as HTML."""
    generator, run = contents.generator, page_facts(contents)
    data = play_data(generator) | {key: run[key] for key in SCRIPT_FACTS}
    data["charts"] = chart_library(contents.cache)
    scripts = (PLAY_SCRIPTS if runs_in_page(generator) else GALLERY_SCRIPTS) + NUMBERS_SCRIPTS
    return document("run.html", scripts, data, run=run, names=generator.class_names)


def page_facts(contents: Contents) -> dict[str, Any]:
    """All facts that the page shows, as plain JSON."""
    generator, evaluation = contents.generator, contents.evaluation
    previews, smaller = preview_frames(contents.previews)
    data, tested = contents.data, evaluation.judge_on_test_set
    classes = class_facts(evaluation, data.counts.tolist() if data else None)
    trained = not generator.holds_training_images
    judge_accuracy = evaluation.score("conditional_accuracy").real
    limits, measurable = contents.limits, not evaluation.not_measurable
    add_states(classes, measurable, judge_accuracy, limits, trained=trained)
    weakest = [weakness.label for weakness in weaknesses(evaluation)]
    rank = {label: number for number, label in enumerate(weakest)}
    by_weakness = sorted(classes, key=lambda row: rank.get(row["label"], len(rank)))
    by_state = {state: [row for row in by_weakness if row["state"] == state] for state in STATES}
    worst_first = list(itertools.chain(*by_state.values()))
    cards = worst_first[:MAX_CARDS]
    advice: dict[str, list[int]] = {}
    for row in worst_first:
        advice.setdefault(row["advice"], []).append(row["label"])
    advice.pop("", None)
    facts = {
        "title": contents.title,
        "verdict": quality_line(evaluation, contents.seconds),
        "caution": generator.caution,
        "trained": trained,
        "plays": runs_in_page(generator),
        "previews": previews,
        "losses": curve(contents.losses),
        "probes": curve(contents.probes),
        "metrics": evaluation.table()[1:],
        "measurement_context": evaluation.context,
        "usual_distance": evaluation.score("copies").details["heldout_nearest_median"],
        "classes": classes,
        "states": {state: len(group) for state, group in by_state.items()},
        "cards": cards,
        "advice": advice
        if contents.settings
        else {_for_fit(words): advice[words] for words in advice},
        "weakest": weakest[0] if weakest else None,
        "kimg": (generator.facts.get("params") or {}).get("total_kimg"),
        "few_held_out": MIN_HELD_OUT,
        "less_diverse": MIN_DIVERSITY,
        "unlike": (DOUBTFUL_EXCESS, POOR_EXCESS),
        "others": MAX_OTHERS,
        "judge": judge_accuracy,
        "judge_on_test_set": tested,
        "limits": limits.model_dump(include=SHOWN_LIMITS),
        "least_images": MIN_DISTANCE_IMAGES,
        "confusion": confusion_facts(evaluation),
        "drawn": drawn_facts(
            generator.model,
            evaluation.context["seed"],
            [row["label"] for row in cards],
            data,
            contents.judge,
        ),
        "data": data
        and data_facts(data, contents.judge, contents.warnings, contents.notes, contents.tested),
        "params": contents.settings or {"preset": None, "rows": []},
        "lineage": contents.lineage,
    }
    sentences = [smaller, *left_out(facts, evaluation, contents.samples)]
    return facts | {"left_out": [text for text in sentences if text]}


def _for_fit(advice: str) -> str:
    """A param of the training is a keyword of `cgan.fit`, without its section of params.yaml."""
    return advice.replace("`train.", "`")


def left_out(facts: dict[str, Any], evaluation: Evaluation, samples: int) -> list[str]:
    """Which facts the page of this run leaves out, in sentences."""
    data, sentences = facts["data"], list[str]()
    suspects = data and data["suspects"]
    if facts["losses"]["every"] > 1:
        sentences.append(f"The curves show only one in {facts['losses']['every']} records.")
    if suspects and (looked_at := suspects["looked_at"]) < data["rows"]:
        sentences.append(
            f"Looking for wrong labels, the judge saw {looked_at:,} of {data['rows']:,} rows, the "
            f"held-out ones first ({MAX_JUDGED_PIXELS:,} pixels are the limit)."
        )
    if fewer := fewer_judged(evaluation, samples):
        sentences.append(fewer)
    if facts["confusion"]["matrix"] is None:
        sentences.append(
            "With this many classes, only the most frequent mistakes are shown, not the confusion matrix."
        )
    return sentences
