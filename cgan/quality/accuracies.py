"""Conditional accuracy, of all classes and of the worst, and GAN-train accuracy.

Shmelkov et al., arXiv:1807.09499, who call the first GAN-test. Accuracies are means over the classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.base.progress import Progress, silent
from cgan.data.images import Images
from cgan.models.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.evaluation import Metric, Score
from cgan.quality.intervals import Bins, Estimate, Estimates
from cgan.quality.judge import Judge, conditional_accuracy, predict, train_judge

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions
    from cgan.quality.evaluate import DrawnSet


def _conditional_accuracy(drawn: DrawnSet) -> Score:
    """The share of drawings in which the judge sees the class that was asked for. Real images: the share of
    held-out ones whose label it names."""
    return replace(
        drawn.score("conditional_accuracy"),
        interval=drawn.accuracy.interval,
        real_interval=drawn.conditions.judge_accuracy.interval,
    )


CONDITIONAL_ACCURACY = Metric(
    key="conditional_accuracy",
    name="conditional accuracy",
    meaning="share of drawings that show the class asked for; odd real images are misread more often",
    measure=_conditional_accuracy,
)
# Without an interval: it is the smallest of many, and that of a single class would lie too low.
WORST_CLASS_ACCURACY = Metric(
    key="worst_class_accuracy",
    name="accuracy of the worst class",
    meaning="conditional accuracy of the class that fares worst",
    measure=lambda drawn: replace(drawn.score("worst_class_accuracy"), interval=None),
)


def drawn_accuracies(conditions: Conditions, judged: Tensor) -> Estimates:
    """The accuracies of drawings that the judge takes for these classes, int64 [N]."""
    labels = conditions.drawn_labels
    return _accuracies(judged == labels, labels, conditions.bins["all drawn"])


def heldout_accuracies(conditions: Conditions, predicted: Tensor) -> Estimates:
    """The accuracies of a classifier that predicts these classes, int64 [held-out images]."""
    rows = conditions.shuffled_rows
    labels = conditions.held_out.tensors.labels[rows]
    return _accuracies(predicted[rows] == labels, labels, conditions.bins["heldout"])


def _accuracies(right: Tensor, labels: Tensor, bins: Bins) -> dict[str, Estimate]:
    """The mean over the classes that have images, and the worst of them. `right` bool [N]."""
    present, classes = labels.unique(return_inverse=True)
    bin_of = torch.bucketize(torch.arange(len(labels)), bins.cuts, right=True)
    counts, hits = (
        torch.zeros(bins.weights.shape[1], len(present), dtype=torch.float64).index_put_(
            (bin_of, classes), counted.double(), accumulate=True
        )
        for counted in (torch.ones_like(right), right)
    )
    by_class = hits.sum(dim=0) / counts.sum(dim=0)
    sampled_counts = bins.weights @ counts
    # A replicate may hold no image of a rare class: there it is as in all of them.
    accuracies = torch.where(
        sampled_counts > 0, (bins.weights @ hits) / sampled_counts.clamp(min=1), by_class
    )
    return {
        "conditional_accuracy": Estimate.of(by_class.mean().item(), accuracies.mean(dim=1)),
        "worst_class_accuracy": Estimate.of(by_class.min().item(), accuracies.amin(dim=1)),
    }


def _gan_train_accuracy(drawn: DrawnSet) -> Score | None:
    """The GAN-train accuracy, beside the judge's own; None where it is not asked for."""
    conditions = drawn.conditions
    if conditions.params.gan_train_kimg == 0:
        return None
    labels = conditions.drawn_labels[conditions.rows_in_mix]
    drawings = Images(
        drawn.pixels[conditions.rows_in_mix], labels, conditions.held_out.class_names, notes=()
    )
    classifier = gan_train(
        drawings, conditions.judge, conditions.params.gan_train_kimg, drawn.progress
    )
    pixels, held_out_labels, _ = conditions.held_out.tensors
    predicted = predict(classifier, pixels).labels
    estimate = heldout_accuracies(conditions, predicted)["conditional_accuracy"]
    return replace(
        estimate.score(conditions.judge_accuracy.value),
        interval=conditional_accuracy(predicted, held_out_labels, conditions.classes).interval,
        real_interval=conditions.judge_accuracy.interval,
    )


GAN_TRAIN_ACCURACY = Metric(
    key="gan_train_accuracy",
    name="GAN-train accuracy",
    meaning="on real images, of a classifier that was trained on drawings alone; mean over classes",
    measure=_gan_train_accuracy,
)


def gan_train(data: Images, judge: Judge, kimg: float | None, progress: Progress = silent) -> Judge:
    """A fresh class network that learns from `data`, drawings, alone.

    It is trained as the judge was, seed included, for `kimg` or as long: so what the judge itself, which
    saw reals, gets on the hold-out is what this can be at best.
    """
    recipe = judge.recipe or JudgeParams()
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware(str(next(judge.parameters()).device), "auto")
    return train_judge(data, recipe, hardware, partial(progress, "GAN-train, on drawings"))
