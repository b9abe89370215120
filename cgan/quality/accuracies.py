"""Conditional accuracy, of all classes and of the worst, and GAN-train accuracy.

Shmelkov et al., arXiv:1807.09499, who call the first GAN-test. Accuracies are means over the classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.models.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.evaluation import Score
from cgan.quality.intervals import Estimate, Estimates
from cgan.quality.judge import Judge, Progress, conditional_accuracy, predict, silent, train_judge
from cgan.quality.metric import Metric

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions, DrawnSet


def _conditional_accuracy(drawn: DrawnSet) -> Score:
    """How often the judge sees the class that was asked for. Real images: how often it names the label of a
    held-out one."""
    of = drawn.conditions
    return replace(
        drawn.score("conditional_accuracy"),
        interval=drawn.accuracy.interval,
        real_interval=of.judge_accuracy.interval,
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
    labels, weights = conditions.drawn_labels, conditions.bin_weights["all drawn"]
    return _accuracies(judged == labels, labels, conditions.classes, weights, weights.shape[1])


def heldout_accuracies(conditions: Conditions, predicted: Tensor) -> Estimates:
    """The accuracies of a classifier that predicts these classes, int64 [held-out images]."""
    return _accuracies(
        predicted[conditions.shuffled_rows] == conditions.shuffled_labels,
        conditions.shuffled_labels,
        conditions.classes,
        conditions.bin_weights["heldout"],
        conditions.heldout_cuts,
    )


def _accuracies(
    right: Tensor, labels: Tensor, classes: int, weights: Tensor, bins: int | Tensor
) -> dict[str, Estimate]:
    """The mean over the classes that have images, and the worst of them. `right` bool [N]; `weights`
    [replicates, bins]: how often each one of `bins` of consecutive rows (`Tensor.tensor_split`) is
    picked."""
    label_bins = labels.tensor_split(bins)
    counts, hits = (
        torch.stack([of.bincount(n, classes) for of, n in zip(label_bins, counted, strict=True)])
        for counted in (part.double().tensor_split(bins) for part in (right | True, right))
    )
    present = counts.sum(dim=0) > 0
    by_class = hits.sum(dim=0)[present] / counts.sum(dim=0)[present]
    sampled_hits, sampled_counts = (weights @ hits)[:, present], (weights @ counts)[:, present]
    # A replicate may hold no image of a rare class: there it is as in all of them.
    accuracies = torch.where(
        sampled_counts > 0, sampled_hits / sampled_counts.clamp(min=1), by_class
    )
    return {
        "conditional_accuracy": Estimate.of(by_class.mean().item(), accuracies.mean(dim=1)),
        "worst_class_accuracy": Estimate.of(by_class.min().item(), accuracies.amin(dim=1)),
    }


def accuracy_of_guesses(judged: Tensor, labels: Tensor, classes: int, tries: int = 1000) -> float:
    """The accuracy that answers which have nothing to do with the images get at most, in all but 2.5 % of the
    cases: its quantile with the answers, `judged`, in random order (a permutation test)."""
    random = torch.Generator().manual_seed(0)
    counts = labels.bincount(minlength=classes)
    # How much a right answer adds to the mean over classes.
    weights = 1 / counts[labels].double() / int(counts.count_nonzero())
    orders = (torch.randperm(len(labels), generator=random) for _ in range(tries))
    accuracies = torch.stack([weights[judged[order] == labels].sum() for order in orders])
    return float(accuracies.quantile(0.975, interpolation="higher"))


def _gan_train_accuracy(drawn: DrawnSet) -> Score | None:
    """Real images: the judge's accuracy, which learnt from real ones."""
    of = drawn.conditions
    if of.params.gan_train_kimg == 0 or of.not_measurable:
        return None
    rows, held_out = of.rows_in_mix, of.held_out
    drawings = Images(drawn.pixels[rows], of.drawn_labels[rows], held_out.class_names, notes=())
    classifier = gan_train(drawings, of.judge, of.params.gan_train_kimg, drawn.progress)
    predicted = predict(classifier, held_out.tensors.pixels).labels
    estimate = heldout_accuracies(of, predicted)[CONDITIONAL_ACCURACY.key]
    return replace(
        estimate.score(of.judge_accuracy.value),
        interval=conditional_accuracy(predicted, held_out.tensors.labels, of.classes).interval,
        real_interval=of.judge_accuracy.interval,
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
