"""The judge's memorisation bias: how differently training and unseen images score beside held-out ones.

The score of real images is what those get that the judge has not seen. None are left for that, so training
images take the drawings' place, and the bias is taken off: how they differ from held-out images, when both
are set beside other held-out ones. Its noise is part of the score's interval.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.distances import FRECHET_DISTANCE
from cgan.quality.estimates import Estimate, Estimates
from cgan.quality.metrics import frechet_distance
from cgan.quality.neighbours import MAX_BLOCK_IMAGES, neighbour_shares

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions

HOLDOUT_SPLITS = 8  # into halves, each of which is set beside the other
MIN_HALF_IMAGES = 50


def subtract_bias(training: Estimates, bias: Estimates) -> Estimates:
    """The estimates for real images that the judge has not seen: those for training images, less the bias."""
    estimates = {}
    for key, estimate in training.items():
        less = estimate - bias[key] if key in bias else estimate
        most = math.inf if key == FRECHET_DISTANCE.key else 1.0
        estimates[key] = Estimate.of(min(less.value, most), less.replicates)
    return estimates


def memorisation_bias(conditions: Conditions) -> Estimates:
    """By how much training images exceed as many held-out ones, class by class, beside other held-out ones:
    the mean over HOLDOUT_SPLITS, in either direction. Empty where the hold-out, or the training images of a
    class, are too few."""
    random = torch.Generator().manual_seed(conditions.params.seed)
    heldout, labels = conditions.heldout.features, conditions.held_out.tensors.labels
    training, training_labels = conditions.training_features, conditions.training_labels
    sets = []
    for _ in range(HOLDOUT_SPLITS):
        rows = torch.randperm(len(labels), generator=random)
        rows = rows[labels[rows].argsort(stable=True)]
        # Every second row of each class; of an odd count, the last row is left out.
        halves = rows[0::2][: len(rows) // 2], rows[1::2]
        order = torch.randperm(len(training), generator=random)
        for reference, others in (halves, halves[::-1]):
            counts = torch.bincount(labels[others], minlength=conditions.classes)
            picked = order[first_rows(training_labels[order], counts)]
            if not MIN_HALF_IMAGES <= len(others) == len(picked):
                return {}
            mixed = torch.randperm(len(others), generator=random)  # all were sorted by class
            sets.append(
                (heldout[reference[mixed]], training[picked[mixed]], heldout[others[mixed]])
            )
            order = order.flip(0)  # the other direction has other training images
    with parts_on_threads(available_threads()) as parallel:
        excesses = list(parallel(lambda features: _excess(*features), sets))
    replicates = len(conditions.bin_weights["heldout"])
    picks = torch.randint(len(sets), (replicates,), generator=random)
    deviation = deviation_of_mean(len(sets), len(sets[0][1]) / len(training))
    estimates = {}
    for key in excesses[0]:
        values = torch.tensor([excess[key] for excess in excesses], dtype=torch.float64)
        estimates[key] = Estimate.of(values.mean().item(), deviation * values[picks])
    return estimates


def deviation_of_mean(sets: int, fraction: float) -> float:
    """The standard deviation of the mean excess of so many sets, as a fraction of that of a single set's.
    `fraction`: of the training images, that a set has.

    Let 1 be the variance that the hold-out's choice gives the mean. From half to half a value varies just as
    much, for halves deviate from the whole hold-out as that does from all images (McCarthy, Review of the
    International Statistical Institute 37, 1969). A set's training images are half as many, so their choice
    adds a variance of 2: of a mean, σ²/N for all N, which sets share as they share the hold-out, and
    σ²/m · (1 - m/N) for the choice of m among them, which falls with the number of sets.
    """
    of_heldout, of_training = 1.0, 2.0
    of_mean = of_training * (fraction + (1 - fraction) / sets)
    return math.sqrt((of_heldout + of_mean) / (of_heldout + of_training))


def _excess(real: Tensor, training: Tensor, heldout: Tensor) -> dict[str, float]:
    """By how much `training` exceeds `heldout` in each metric, both beside `real`: features [N, D] with one
    N."""

    def metrics(features: Tensor) -> dict[str, float]:
        most = MAX_BLOCK_IMAGES // 2
        shares = neighbour_shares(real[:most], features[:most])
        return {FRECHET_DISTANCE.key: frechet_distance(real, features), **shares}

    of_training, of_heldout = metrics(training), metrics(heldout)
    return {key: value - of_heldout[key] for key, value in of_training.items()}


def first_rows(labels: Tensor, counts: Tensor) -> Tensor:
    """Rows of the first images of each class, as many as `counts` [classes] asks for or all there are, in
    order of the classes."""
    available = labels.bincount(minlength=len(counts)).tolist()
    by_class = labels.argsort(stable=True).split(available)
    return torch.cat([rows[:count] for rows, count in zip(by_class, counts.tolist(), strict=True)])
