"""Conditional accuracy, of all classes and of the worst, and GAN-train accuracy: formulas, and their Scores.

Shmelkov et al., arXiv:1807.09499, who call the first GAN-test. Accuracies are means over the classes.
"""

import functools
from dataclasses import replace

import torch
from torch import Tensor

from cgan.evaluation import Score
from cgan.images import Images
from cgan.model.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.estimates import Estimate, Estimates
from cgan.quality.evaluation_set import EvaluationSet
from cgan.quality.judge import BATCH_SIZE, Judge, Progress, predict, silent, train_judge
from cgan.quality.metrics import Accuracy, conditional_accuracy


def accuracy_scores(
    evaluation_set: EvaluationSet, judged: Tensor, accuracy: Accuracy
) -> dict[str, Score]:
    """How often the judge sees the class that was asked for: `judged` int64 [N], its answers for drawings of
    `evaluation_set.drawn_labels`, and their `accuracy`. Real images: how often it names the label of a
    held-out one."""
    found = drawn_accuracies(evaluation_set, judged)
    real = heldout_accuracies(evaluation_set, evaluation_set.heldout.labels)
    mean, worst = (found[key].score(key, real[key]) for key in real)
    mean = replace(
        mean,
        interval=accuracy.interval,
        real_interval=evaluation_set.judge_accuracy.interval,
        details={"constant": 1 / evaluation_set.classes},  # of one answer for all
    )
    # Without an interval: it is the smallest of many, and that of a single class would lie too low.
    return {"conditional_accuracy": mean, "worst_class_accuracy": replace(worst, interval=None)}


def drawn_accuracies(evaluation_set: EvaluationSet, judged: Tensor) -> Estimates:
    """The accuracies of drawings that the judge takes for these classes, int64 [N]."""
    labels = evaluation_set.drawn_labels
    weights = evaluation_set.all_drawn_weights
    return _accuracies(judged == labels, labels, weights, evaluation_set.classes)


def heldout_accuracies(evaluation_set: EvaluationSet, predicted: Tensor) -> Estimates:
    """The accuracies of a classifier that predicts these classes, int64 [held-out images]."""
    right = (predicted == evaluation_set.heldout_labels)[evaluation_set.shuffled_rows]
    return _accuracies(
        right,
        evaluation_set.shuffled_labels,
        evaluation_set.bin_weights["heldout"],
        evaluation_set.classes,
        evaluation_set.heldout_cuts,
    )


def _accuracies(
    right: Tensor, labels: Tensor, weights: Tensor, classes: int, cuts: Tensor | None = None
) -> dict[str, Estimate]:
    """The mean over the classes that have images, and the worst of them. `right` bool [N]; `weights`
    [replicates, bins]: how often each bin of consecutive rows is picked; `cuts`: where bins begin, without
    them they are of equal size."""
    bins = weights.shape[1] if cuts is None else cuts
    label_bins = labels.tensor_split(bins)
    right_bins = right.double().tensor_split(bins)
    counts = torch.stack([each.bincount(minlength=classes) for each in label_bins]).double()
    hits = torch.stack(
        [
            of_labels.bincount(of_right, classes)
            for of_labels, of_right in zip(label_bins, right_bins, strict=True)
        ]
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


def gan_train_score(
    evaluation_set: EvaluationSet,
    drawn: Tensor,
    held_out: Images,
    kimg: float | None,
    progress: Progress = silent,
) -> Score:
    """The accuracy on held-out images of a classifier that learnt from drawings alone, uint8 [N, C, H, W] of
    `evaluation_set.drawn_labels`. Real images: the judge's accuracy, which learnt from real ones."""
    rows = evaluation_set.rows_in_mix
    drawings = Images(drawn[rows], evaluation_set.drawn_labels[rows], held_out.class_names)
    classifier = gan_train(drawings, evaluation_set.judge, kimg, progress)
    predicted = predict(classifier, held_out.tensors.pixels).labels
    accuracy = heldout_accuracies(evaluation_set, predicted)["conditional_accuracy"]
    labels, classes = evaluation_set.heldout_labels, evaluation_set.classes
    return replace(
        accuracy.score("gan_train_accuracy", evaluation_set.judge_accuracy.value),
        interval=conditional_accuracy(predicted, labels, classes).interval,
        real_interval=evaluation_set.judge_accuracy.interval,
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
    batch = min(BATCH_SIZE, len(data))
    bar = functools.partial(progress, "GAN-train, on drawings", images_a_step=batch)
    return train_judge(data, recipe, hardware.device, hardware.precision, bar)
