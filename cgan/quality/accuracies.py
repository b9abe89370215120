"""Conditional accuracy, of all classes and of the worst, and GAN-train accuracy: formulas, and their Scores.

Shmelkov et al., arXiv:1807.09499. Accuracies are means over the classes.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cgan.evaluation import Score
from cgan.images import Images
from cgan.model.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.estimates import Estimate, Estimates, scores
from cgan.quality.evaluation_set import EvaluationSet
from cgan.quality.judge import Judge, Prediction, Progress, look, silent, train_judge
from cgan.quality.metrics import Accuracy, accuracy_of, conditional_accuracy


def accuracy_scores(against: EvaluationSet, draws: Sequence[Prediction]) -> dict[str, Score]:
    """How often the judge sees the class that was asked for, in several sets of drawings of the classes
    `against.asked`. Real images: how often it names the label of a held-out one."""
    estimates = [accuracy_estimates(against, each) for each in draws]
    found = scores(estimates, heldout_accuracies(against, against.real.classes))
    interval = accuracy_of_all(against, draws).interval
    every = replace(
        found["conditional_accuracy"],
        interval=interval,
        real_interval=against.agreement.interval,
        details={"constant": 1 / against.classes},  # of one answer for all
    )
    # Without an interval: it is the smallest of many, and that of a single class would lie too low.
    worst = replace(found["worst_class_accuracy"], interval=None)
    return {"conditional_accuracy": every, "worst_class_accuracy": worst}


def accuracy_of_all(against: EvaluationSet, draws: Sequence[Prediction]) -> Accuracy:
    """The accuracy of all sets of drawings together."""
    of_draws = [
        conditional_accuracy(each.classes, against.asked, against.classes) for each in draws
    ]
    return accuracy_of(torch.stack([each.confusion for each in of_draws]).sum(dim=0))


def accuracy_estimates(against: EvaluationSet, drawn: Prediction) -> Estimates:
    """The accuracies of one set of drawings."""
    right = drawn.classes == against.asked
    return _accuracies(right, against.asked, against.weights["asked"], against.classes)


def heldout_accuracies(against: EvaluationSet, answers: Tensor) -> Estimates:
    """The accuracies of a classifier that gives these answers, int64 [held-out images]."""
    right = (answers == against.labels)[against.mixed]
    return _accuracies(right, against.mixed_labels, against.weights["real"], against.classes)


def proportion(against: EvaluationSet, marked: Tensor) -> Estimate:
    """The share of the first drawings, bool [N], that are marked."""
    of_one_class = torch.zeros(len(marked), dtype=torch.int64)
    return _accuracies(marked, of_one_class, against.weights["asked"], classes=1)[
        "conditional_accuracy"
    ]


def _accuracies(
    right: Tensor, labels: Tensor, weights: Tensor, classes: int
) -> dict[str, Estimate]:
    """The mean over the classes that have images, and the worst of them."""
    parts, marks = (values.tensor_split(weights.shape[1]) for values in (labels, right.double()))
    counts = torch.stack([part.bincount(minlength=classes) for part in parts]).double()
    pairs = zip(parts, marks, strict=True)
    hits = torch.stack([part.bincount(marked, classes) for part, marked in pairs])
    present = counts.sum(dim=0) > 0
    by_class = hits.sum(dim=0)[present] / counts.sum(dim=0)[present]
    # A sample may hold no image of a rare class: there it is as in all of them.
    sampled, of_class = (weights @ hits)[:, present], (weights @ counts)[:, present]
    accuracies = torch.where(of_class > 0, sampled / of_class.clamp(min=1), by_class)
    return {
        "conditional_accuracy": Estimate.of(by_class.mean().item(), accuracies.mean(dim=1)),
        "worst_class_accuracy": Estimate.of(by_class.min().item(), accuracies.amin(dim=1)),
    }


def gan_train_score(
    against: EvaluationSet,
    drawn: Tensor,
    held_out: Images,
    kimg: float | None,
    progress: Progress = silent,
) -> Score:
    """On held-out images, of a classifier that learnt from drawings uint8 [N, C, H, W] of the classes
    `against.asked` alone. Real images: what the judge gets, which learnt from real ones."""
    rows = against.rows
    learnt_from = Images(drawn[rows], against.asked[rows], held_out.class_names)
    classifier = gan_train(learnt_from, against.judge, kimg, progress)
    answers = look(classifier, held_out.tensors.pixels).classes
    accuracy = heldout_accuracies(against, answers)["conditional_accuracy"]
    return replace(
        accuracy.score("gan_train_accuracy", against.agreement.value),
        interval=conditional_accuracy(answers, against.labels, against.classes).interval,
        real_interval=against.agreement.interval,
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
    batch = min(recipe.batch_size, len(data))
    bar = functools.partial(progress, "GAN-train, on drawings", images_a_step=batch)
    return train_judge(data, recipe, hardware.device, hardware.precision, bar)
