"""`cgan.evaluate`: a generator's drawings beside real images, by a judge; and METRICS, what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from cgan.base.errors import DataError
from cgan.base.progress import Progress, progress_bar, silent
from cgan.base.report import Number
from cgan.base.settings import python_call
from cgan.base.text import listed
from cgan.data.arrays import image_digests
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware
from cgan.models.model_file import digest_of
from cgan.params.checks import check_section
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality import accuracies, diversity, feature_metrics, likeness
from cgan.quality.conditions import Conditions
from cgan.quality.evaluation import ClassScores, Evaluation, Metric, Score
from cgan.quality.intervals import Estimate, Estimates
from cgan.quality.judge import (
    Accuracy,
    Judge,
    Prediction,
    accuracy_of_predictions,
    judge_accuracy,
    predict,
    require_judge_of,
    train_judge,
)

# All metrics, in the order in which they are shown.
METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        feature_metrics.FRECHET_DISTANCE,  # accuracy is not first: a weak judge says little by it
        accuracies.CONDITIONAL_ACCURACY,
        feature_metrics.COVERAGE,
        feature_metrics.RECALL,
        accuracies.WORST_CLASS_ACCURACY,
        diversity.WORST_CLASS_DIVERSITY,
        accuracies.GAN_TRAIN_ACCURACY,
        likeness.COPIES,
    )
}


class HasModel(Protocol):
    """Anything with a `model` that draws, such as a `cgan.Generator`."""

    @property
    def model(self) -> GenerativeModel: ...


@python_call
def evaluate(
    generator: HasModel | GenerativeModel,
    train: Images,
    held_out: Images,
    *,
    judge: Judge | None = None,
    test: Images | None = None,
    progress: Progress = progress_bar,
    **params: Any,
) -> Evaluation:
    """Evaluation of a generator's drawings, beside real images.

    `train`: the images that it learnt from; `held_out`: others of the same classes and size, which neither
    it nor the judge has seen. `judge`: a network that was trained to name the classes of `train`
    (`cgan.quality.judge.train_judge`); without one, one is trained first, which takes seconds to minutes.
    `test`: further images of these classes, on which only the judge is tested. `params`: how many drawings
    are judged (`samples=10_000`), with which `seed`; and `gan_train_kimg`, the length of a second judge's
    training, on drawings alone: by default that of the first, 0 for none. Equal arguments give equal numbers
    on one machine with one version of torch.

    Raises DataError where the images are not of one kind, or too few, ParamsError for a param that does not
    exist or does not fit.

    >>> evaluation = cgan.evaluate(run.generator, train, held_out, samples=300, gan_train_kimg=0)
    >>> evaluation.score("recall").interval
    (..., ...)
    """
    own = "judge", "test", "progress"
    how = check_section(EvaluateParams, "evaluate", params, "cgan.evaluate", *own)
    model = generator if isinstance(generator, GenerativeModel) else generator.model
    require_matching(model, train, held_out, **({"test": test} if test else {}))
    if judge is None:
        hardware = choose_hardware(str(model.device), "auto")
        judge = train_judge(train, JudgeParams(), hardware, partial(progress, "judge"))
    require_judge_of(judge, train)
    conditions = Conditions.prepare(judge.to(model.device), train, held_out, how, [model])
    drawn = model.draw(conditions.drawn_labels, how.seed, progress)
    right = judge_accuracy(judge, test) if test else None  # it may have no images
    on_test_set = Number(value=right.value, interval=right.interval) if right else None
    context = conditions.context(digest_of(model.state_dict()))
    measured = measure(conditions, drawn, progress=progress)
    return replace(measured, context=context, judge_on_test_set=on_test_set)


def measure(
    conditions: Conditions,
    drawn: Tensor,
    prediction: Prediction | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluation of drawings uint8 [N, C, H, W] of the classes `conditions.drawn_labels`, beside real images;
    `prediction`: the judge's for them, where it is known."""
    prediction = prediction or predict(conditions.judge, drawn)
    drawings = DrawnSet(conditions, drawn, prediction, progress)
    steps = progress("metrics", range(len(METRICS)))
    return Evaluation(
        metrics={key: METRICS[key].score(drawings) for _, key in zip(steps, METRICS, strict=True)},
        classes=drawings.class_scores(),
        confusion=drawings.accuracy.confusion.tolist(),
        class_names=conditions.train.class_names if conditions.train.is_named else None,
    )


@dataclass(eq=False)
class DrawnSet:
    """Drawings: `pixels` uint8 [N, C, H, W] of the classes `conditions.drawn_labels`, and the judge's
    `prediction` for them. What several metrics need is computed once."""

    conditions: Conditions
    pixels: Tensor
    prediction: Prediction
    progress: Progress

    def __post_init__(self) -> None:
        self.labels = self.conditions.drawn_labels

    @cached_property
    def accuracy(self) -> Accuracy:
        return accuracy_of_predictions(self.prediction.labels, self.labels, self.conditions.classes)

    @cached_property
    def estimates(self) -> Estimates:
        """The metrics that have replicates, for which `Conditions.real` has what real images get."""
        right = self.prediction.labels == self.labels
        bins = self.conditions.bins["all drawn"]
        in_mix = self.prediction.features[self.conditions.rows_in_mix]
        of_features = self.conditions.feature_estimates(in_mix, "drawn")
        return {**accuracies.accuracy_estimates(right, self.labels, bins), **of_features}

    def beside_real(self, key: str) -> Score:
        """The score of a metric among the `estimates`, beside what real images get."""
        return self.estimates[key].score(self.conditions.real[key])

    @cached_property
    def diversities(self) -> Sequence[Estimate | None]:
        """The diversity of each class."""
        return diversity.diversity_by_class(self.pixels, self.labels, self.conditions.train)

    @cached_property
    def near_copies(self) -> likeness.NearCopies:
        real = self.conditions.train, self.conditions.held_out
        seed = self.conditions.params.seed
        return likeness.find_near_copies(self.pixels, self.labels, *real, seed)

    def class_scores(self) -> list[ClassScores]:
        """Each class by itself."""
        copies = self.near_copies
        return [
            ClassScores(
                heldout=int(self.conditions.held_out.counts[label]),
                accuracy=self.accuracy.by_class[label],
                accuracy_interval=self.accuracy.interval_by_class[label],
                real_accuracy=self.conditions.judge_accuracy.by_class[label],
                diversity=diverse.value if diverse else None,
                diversity_interval=diverse.interval if diverse else None,
                copies=int(copies.is_copy[copies.labels == label].sum()),
                compared=int((copies.labels == label).sum()),
                real_copies=int(copies.real_by_class[label, 0]),
                real_compared=int(copies.real_by_class[label, 1]),
            )
            for label, diverse in enumerate(self.diversities)
        ]


def require_matching(
    model: GenerativeModel | Images, train: Images, held_out: Images, **others: Images
) -> None:
    """Raises DataError where images, which are named as arguments, are not of the classes and the size of
    what draws, or was drawn; or where held-out images are training images, too."""
    expected = model.classes, *model.shape
    for name, images in {"train": train, "held_out": held_out, **others}.items():
        if (found := (images.classes, *images.shape)) != expected:
            raise DataError(
                f"{name}: expected the generator's classes, channels, height and width, {expected}; found "
                f"{found}. Give the images it was trained on, and others of the same kind."
            )
        if images.is_named and train.is_named and images.class_names != train.class_names:
            raise DataError(
                f"{name}: expected the classes of train in its order, {listed(train.class_names)}; found "
                f"{listed(images.class_names)}. Make both by `Images.split`, or with one `class_names`."
            )
    if shared := shared_images(train, held_out):
        raise DataError(
            f"held_out: expected images that are not in train; found {shared:,} of {len(held_out):,} that "
            "are. Make both with `train, held_out = images.split(0.1)`, which keeps copies together."
        )


def shared_images(train: Images, held_out: Images) -> int:
    """Number of the held-out images that are training images, too."""
    held, trained = (image_digests(part.pixels) for part in (held_out, train))
    return int(np.isin(held, trained).sum())
