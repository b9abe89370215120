"""The page of a run: the generator to play with, and how good its drawings are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgan.data.images import SPLITS, Images
from cgan.drawing.generator import Generator
from cgan.page.assemble import GALLERY_SCRIPTS, PLAY_SCRIPTS, document, play_data
from cgan.page.classes import DOUBTFUL_DIVERSITY, FEW_HELD_OUT, STATES, WEAK_JUDGE, judged_classes
from cgan.page.image_facts import MAX_CARDS, drawn_facts, preview_tile, rows_of, suspects_facts
from cgan.params.sections import AutoTrainParams, GateParams
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import Judge

# The numbers that come first, by the key of their metric.
LEAD = {
    "show the class asked for": "conditional_accuracy",
    "of what real images show is drawn, too": "recall",
    "are near copies of training images": "copies",
}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a page. It leaves out what is not given.

    `curves` (HTML), `previews` (PNG by step), `seconds`: of the training. `limits`: the gate's. `data`: all
    images, with `splits`; with the `judge`, the page shows drawings beside training images, and labels that
    look wrong. `remarks`: notes on the data; `tested`: images of its test set. `origin` of a project's run:
    `run_name`, `commit`, `dirty`, `sha256` of the generator's file.
    """

    generator: Generator
    evaluation: Evaluation
    title: str = "cgan"
    curves: str
    previews: Mapping[int, bytes]
    seconds: float | None = None
    limits: GateParams
    data: Images | None = None
    judge: Judge | None = None
    remarks: Sequence[str] = ()
    tested: int = 0
    origin: Mapping[str, Any] | None = None


def render_page(contents: Contents) -> str:
    """The page, as HTML."""
    plays = contents.generator.model.runs_in_browser
    shown = template_values(contents)
    in_order = sorted(contents.previews.items())
    previews = [{"step": step, "src": preview_tile(png)} for step, png in in_order]
    data = play_data(contents.generator) | {"previews": previews}
    scripts = (*(PLAY_SCRIPTS if plays else GALLERY_SCRIPTS), "run.js")
    return document("run.html", scripts, data, run=contents, plays=plays, **shown)


def template_values(contents: Contents) -> dict[str, Any]:
    """The facts that the page shows besides its contents."""
    generator, evaluation = contents.generator, contents.evaluation
    data, judge = contents.data, contents.judge
    model = generator.model
    params = generator.facts.get("params", {})
    defaults = AutoTrainParams().model_dump()
    scores = {words: evaluation.score(key) for words, key in LEAD.items()}
    counts = data.counts.tolist() if data else None
    classes = judged_classes(evaluation, counts, contents.limits, model)
    weakest = [label for label, _ in evaluation.weakest_classes()]
    rank = {label: number for number, label in enumerate(weakest)}
    worst_first = sorted(
        classes, key=lambda row: (STATES.index(row.state), rank.get(row.label, len(rank)))
    )
    advice: dict[str, list[int]] = {}
    for row in worst_first:
        if row.advice:
            advice.setdefault(row.advice, []).append(row.label)
    cards = worst_first[:MAX_CARDS]
    labels = [row.label for row in cards]
    return {
        "names": generator.class_names,
        "report": evaluation.report(contents.seconds),
        "kind": model.kind,
        "classes": classes,
        "states": Counter(row.state for row in reversed(worst_first) if row.state),
        "cards": cards,
        "advice": advice,
        "weakest": weakest[0] if weakest else None,
        "judge_accuracy": evaluation.score("conditional_accuracy").real,
        "weak_judge_advice": WEAK_JUDGE,
        "few_held_out": FEW_HELD_OUT,
        "less_diverse": DOUBTFUL_DIVERSITY,
        "drawn": drawn_facts(model, evaluation.context["seed"], labels, data, judge),
        "parts": {part: len(rows_of(data, part)) for part in SPLITS} if data else {},
        "suspects": suspects_facts(data, judge) if data and judge else None,
        "total_kimg": params.get("total_kimg"),
        "lead": [(words, score) for words, score in scores.items() if score.value is not None],
        "chosen": [
            (key, str(value)) for key, value in params.items() if defaults.get(key) != value
        ],
    }
