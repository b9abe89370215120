"""Quality of generators of small parts of the embedded sample."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from cgan.params.sections import TrainChoices
from cgan.quality.conditions import Conditions, labels_to_draw
from cgan.quality.evaluate import METRICS, measure
from cgan.quality.evaluation import Evaluation, Score
from cgan.quality.judge import Judge, accuracy
from cgan.quality.likeness import find_near_copies
from cgan.training.auto import choose
from cgan.training.loop import train

from .evaluation_set import EvaluationSet, all_params, as_dataset, fresh_generator
from .scale import SHORT_RUN, Scale
from .tables import Result, Table

OF_SMALL = ("conditional_accuracy", "worst_class_accuracy", "recall", "gan_train_accuracy")
A_CLASS = (10, 20, 30, 100, None)  # images; None: all


def report(common: EvaluationSet, judge: Judge, drawn: Tensor) -> Evaluation:
    """Evaluation as the stage evaluate has it."""
    params = all_params()
    network = fresh_generator("default")  # nobody asks it for anything
    changes = {"samples": len(drawn), "gan_train_kimg": common.judge_kimg}
    evaluate = params.evaluate.model_copy(update=changes)
    judge.recipe = params.train_judge
    parts = judge, common.training, common.heldout
    return measure(Conditions.prepare(*parts, evaluate, [network]), drawn)


def cells(found: Evaluation, keys: tuple[str, ...], of: str = "value") -> list[str]:
    values = (getattr(found.score(key), of) for key in keys)
    return ["–" if value is None else f"{value:.3f}" for value in values]


def small(scale: Scale) -> Result:
    """Trained by params.yaml on as many images of each class; all else is alike for all sizes."""
    common, params = EvaluationSet.prepare(None, scale.judge_kimg, sample=True), all_params()
    pairs = ((part.pixels, part.labels) for part in (common.training, common.heldout))
    images, labels = map(np.concatenate, zip(*pairs, strict=True))
    judge = replace(common, training=as_dataset(images, labels, 10)).judge
    asked = labels_to_draw(10, params.evaluate)[: scale.limit]
    table = Table(
        "Small sets: parts of the embedded sample",
        ["images", "s of training", *(METRICS[key].name for key in OF_SMALL),
         "of one that saw the images", "copies"],
        note=f"{len(common.heldout):,} images are held out from all. The judge has learnt all 5,000, theirs "
        f"too. {len(asked):,} drawings; copies of the set that was trained on.",
    )  # fmt: skip
    short = SHORT_RUN if scale.limit else {}
    choices = TrainChoices.model_validate(params.train.model_dump() | short)
    reports: dict[str, Any] = {}
    for count in A_CLASS:
        of = common.training.labels
        rows = [np.flatnonzero(of == label)[:count] for label in range(10)]
        some = common.training.at(np.concatenate(rows))
        trained = train(some, choose(choices, some).params)
        drawn = trained.generator.draw(asked, params.evaluate.seed)
        found = report(common, judge, drawn)
        near = find_near_copies(drawn, asked, some, common.heldout, params.evaluate.seed)
        pupil = accuracy(replace(common, training=some).judge, common.heldout)
        closer = near.is_copy.double().mean().item()
        more = {"pupil": Score(value=pupil.value), "copies": Score(value=closer)}
        found = replace(found, metrics={**found.metrics, **more})
        reports[f"{len(some):,}"] = found.report().as_json()
        numbers = cells(found, (*OF_SMALL, "pupil", "copies"))
        table.add(f"{len(some):,}", f"{trained.wall_time_s:.0f}", *numbers)
        print(" ".join(table.rows[-1]), flush=True)
    table.add("real images", "", *cells(found, OF_SMALL, "real"), "", "0.010")
    return Result([table], [], {"reports": reports})
