"""How good drawings are: of each preset, and of generators that learnt from few images."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import cgan
from cgan.base.report import Cell, Kind, Report, Table, as_text
from cgan.data.images import Images
from cgan.models.hardware import choose_hardware
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality.conditions import Conditions
from cgan.quality.evaluate import METRICS, measure
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import Judge, judge_accuracy, train_judge
from cgan.training.fit import Run

from .common import Scale, digits, divided, report, sample

OF_SMALL = (
    "conditional_accuracy",
    "worst_class_accuracy",
    "recall",
    "gan_train_accuracy",
    "copies",
)
PER_CLASS = (10, 20, 30, 100, None)  # images; None: all


def of_presets(scale: Scale) -> Report:
    """Each preset trained with each seed, all seen by one judge."""
    images, about = digits()
    train, held_out = divided(images, scale.limit)
    judge = judge_of(train, scale)
    rows: list[Sequence[Cell]] = []
    figures: dict[str, Any] = {}
    for preset in scale.presets:
        runs = [trained(train, scale, preset, seed) for seed in scale.seeds]
        found = [evaluated(run, judge, train, held_out, scale) for run in runs]
        values = {key: [each.score(key).value for each in found] for key in METRICS}
        seconds = [run.seconds for run in runs]
        figures[preset] = {"s": seconds, **values}
        cells = [spread(each, METRICS[key].kind) for key, each in values.items()]
        rows.append([f"preset {preset}", spread(seconds, "number"), *cells])
    rows.append(["real images", "", *of_real(found[0], METRICS)])
    names = [metric.name for metric in METRICS.values()]
    return report(
        Table("Presets", ("who", "s of training", *names), rows),
        f"Of {about} {len(held_out):,} are held out; one judge. Mean ± standard deviation of seeds "
        f"{', '.join(map(str, scale.seeds))}.",
        presets=figures,
    )


def of_small_sets(scale: Scale) -> Report:
    """Trained on as many images of each class; all else is alike for all sizes."""
    images = sample()
    train, held_out = divided(images)
    judge = judge_of(images, scale)
    rows: list[Sequence[Cell]] = []
    figures: dict[str, Any] = {}
    for count in PER_CLASS:
        chosen = [np.flatnonzero(train.labels == label)[:count] for label in range(train.classes)]
        some = train.at(np.concatenate(chosen))
        found = evaluated(trained(some, scale), judge, train, held_out, scale, some)
        pupil = judge_accuracy(judge_of(some, scale), held_out).value
        figures[str(len(some))] = found.values() | {"on_images": pupil}
        rows.append([len(some), *map(found.score, OF_SMALL), as_text(pupil)])
    rows.append(["real images", *of_real(found, OF_SMALL), ""])
    names = [METRICS[key].name for key in OF_SMALL]
    return report(
        Table("Small sets", ("images", *names, "on images"), rows),
        f"Parts of the embedded sample; {len(held_out):,} images are held out from all, and the judge has "
        "learnt all. Copies are of the set that was trained on. On images: a judge trained on that set.",
        small=figures,
    )


def spread(values: Sequence[float | None], kind: Kind) -> str:
    """`99.5 % ± 0.1 %`: mean and standard deviation; the mean alone of one value."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = as_text(statistics.fmean(known), kind)
    return f"{text} ± {as_text(statistics.stdev(known), kind)}" if len(known) > 1 else text


def of_real(found: Evaluation, keys: Iterable[str]) -> list[str]:
    """What real images get in the drawings' place."""
    return [as_text(score.real, score.kind) for score in map(found.score, keys)]


def judge_of(images: Images, scale: Scale) -> Judge:
    return train_judge(images, JudgeParams(**scale.length), choose_hardware(scale.device, "auto"))


def trained(images: Images, scale: Scale, preset: str = "default", seed: int = 1) -> Run:
    return cgan.fit(images, preset, seed, device=scale.device, progress=False, **scale.length)


def evaluated(
    run: Run,
    judge: Judge,
    train: Images,
    held_out: Images,
    scale: Scale,
    learnt: Images | None = None,
) -> Evaluation:
    """As the stage evaluate has it; near copies are of what the run has `learnt`, else of `train`."""
    changes = {"samples": scale.limit} if scale.limit else {}
    params = EvaluateParams(gan_train_kimg=scale.length.get("total_kimg"), **changes)
    model = run.generator.model
    conditions = Conditions.prepare(judge.to(model.device), train, held_out, params, [model])
    drawn = model.draw(conditions.drawn_labels, params.seed)
    return measure(replace(conditions, train=learnt or train), drawn)
