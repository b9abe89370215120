"""Conditional accuracy, of all classes and of the worst, and GAN-train accuracy.

Shmelkov et al., arXiv:1807.09499, who call the first GAN-test. Accuracies are means over the classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.base.progress import Progress
from cgan.data.images import Images
from cgan.models.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.evaluation import Metric, Score
from cgan.quality.intervals import Bins, Estimate, Estimates
from cgan.quality.judge import Accuracy, Judge, accuracy_of_predictions, predict, train_judge

if TYPE_CHECKING:
    from cgan.quality.evaluate import DrawnSet


def accuracy_estimates(right: Tensor, labels: Tensor, bins: Bins) -> Estimates:
    """The mean over the classes that have images, and the worst of them. `right` bool [N]: is the image taken
    for its label, int64 [N]?"""
    present, class_index = labels.unique(return_inverse=True)
    bin_of = torch.bucketize(torch.arange(len(labels)), bins.cuts, right=True)
    counts, hits = (
        torch.zeros(bins.weights.shape[1], len(present), dtype=torch.float64).index_put_(
            (bin_of, class_index), counted.double(), accumulate=True
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
        "conditional_accuracy": Estimate.centred(by_class.mean().item(), accuracies.mean(dim=1)),
        "worst_class_accuracy": Estimate.centred(by_class.min().item(), accuracies.amin(dim=1)),
    }


def _with_intervals(score: Score, drawn: Accuracy, real: Accuracy) -> Score:
    return replace(score, interval=drawn.interval, real_interval=real.interval)


CONDITIONAL_ACCURACY = Metric(
    key="conditional_accuracy",
    name="conditional accuracy",
    meaning="share of drawings that show the class asked for; odd real images are misread more often",
    measure=lambda drawn: _with_intervals(
        drawn.beside_real("conditional_accuracy"), drawn.accuracy, drawn.conditions.judge_accuracy
    ),
)
# Without an interval: it is the smallest of many, and that of a single class would lie too low.
WORST_CLASS_ACCURACY = Metric(
    key="worst_class_accuracy",
    name="accuracy of the worst class",
    meaning="conditional accuracy of the class that fares worst",
    measure=lambda drawn: replace(drawn.beside_real("worst_class_accuracy"), interval=None),
)


def train_on_drawings(data: Images, judge: Judge, kimg: float | None, progress: Progress) -> Judge:
    """A fresh classifier that learns from `data`, drawings, alone.

    It is trained as the judge was, seed included, for `kimg` or as long: the judge stands beside it.
    """
    recipe = judge.recipe or JudgeParams()
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware(str(next(judge.parameters()).device), "auto")
    return train_judge(data, recipe, hardware, partial(progress, "GAN-train, on drawings"))


def _gan_train_accuracy(drawn: DrawnSet) -> Score | None:
    """The GAN-train accuracy, beside the judge's own; None where it is not asked for."""
    conditions = drawn.conditions
    kimg, rows = conditions.params.gan_train_kimg, conditions.rows_in_mix
    if kimg == 0:
        return None
    names = conditions.held_out.class_names
    drawings = Images(drawn.pixels[rows], conditions.drawn_labels[rows], names, notes=())
    classifier = train_on_drawings(drawings, conditions.judge, kimg, drawn.progress)
    pixels, labels, _ = conditions.held_out.tensors
    predicted = predict(classifier, pixels).labels
    estimate = conditions.held_out_accuracies(predicted)["conditional_accuracy"]
    judge = conditions.judge_accuracy
    accuracy = accuracy_of_predictions(predicted, labels, conditions.classes)
    return _with_intervals(estimate.score(judge.value), accuracy, judge)


GAN_TRAIN_ACCURACY = Metric(
    key="gan_train_accuracy",
    name="GAN-train accuracy",
    meaning="on real images, of a classifier that was trained on drawings alone; mean over classes",
    measure=_gan_train_accuracy,
)
