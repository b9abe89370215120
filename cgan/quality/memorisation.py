"""The judge's memorisation bias: how much nearer training images come to held-out ones than unseen images do.

The score of real images is what those get that the judge has not seen. None are left for that, so training
images take the drawings' place, and the bias is taken off: how they differ from held-out images, when both
are set beside other held-out ones. Its noise is part of the score's interval.
"""

import math

import torch
from torch import Tensor

from cgan.evaluation import METRICS
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.distances import kernel_distances
from cgan.quality.estimates import Estimate, Estimates
from cgan.quality.evaluation_set import MAX_BLOCK, EvaluationSet
from cgan.quality.metrics import frechet_distance
from cgan.quality.neighbours import manifold

SPLITS = 8  # of the hold-out into halves, each of which is set beside the other
LEAST_IN_HALF = 50


def unbiased(training: Estimates, bias: Estimates) -> Estimates:
    """What real images get that the judge has not seen: what training images get, less the bias."""
    estimates = {}
    for key, estimate in training.items():
        less = estimate - bias[key] if key in bias else estimate
        value = min(less.value, 1) if METRICS[key].is_share else less.value
        estimates[key] = Estimate.of(value, less.replicates)
    return estimates


def memorisation_bias(against: EvaluationSet) -> Estimates:
    """What training images get beyond as many held-out ones, class by class, beside other held-out ones: the
    mean over SPLITS, in either direction. Empty where these are too few, or the training images of a class
    are."""
    random = torch.Generator().manual_seed(against.seed)
    real, sets = against.real.features, []
    for _ in range(SPLITS):
        mixed = torch.randperm(len(against.labels), generator=random)
        mixed = mixed[against.labels[mixed].argsort(stable=True)]
        halves = mixed[0::2][: len(mixed) // 2], mixed[1::2]
        trained = torch.randperm(len(against.trained), generator=random)
        for reference, others in (halves, halves[::-1]):
            counts = torch.bincount(against.labels[others], minlength=against.classes)
            picked = trained[_first_of_each(against.trained_labels[trained], counts)]
            if not LEAST_IN_HALF <= len(others) == len(picked):
                return {}
            order = torch.randperm(len(others), generator=random)  # all were sorted by class
            rows = reference[order], picked[order], others[order]
            sets.append((real[rows[0]], against.trained[rows[1]], real[rows[2]]))
            trained = trained.flip(0)
    with parts_on_threads(available_threads()) as parallel:
        excesses = list(parallel(lambda three: _excess(*three), sets))
    picks = torch.randint(len(sets), (len(against.weights["real"]),), generator=random)
    estimates = {}
    for key in excesses[0]:
        values = torch.tensor([excess[key] for excess in excesses], dtype=torch.float64)
        replicates = deviation_of_mean(len(sets)) * values[picks]
        estimates[key] = Estimate.of(values.mean().item(), replicates)
    return estimates


def deviation_of_mean(sets: int) -> float:
    """The standard deviation of the mean excess of so many sets, as a fraction of that of a single set's.

    Let 1 be the variance that the hold-out's choice gives the mean. From half to half a value varies just as
    much, for halves deviate from the whole hold-out as that does from all images (McCarthy, Review of the
    International Statistical Institute 37, 1969). A set's training images are half as many, so their choice
    adds a variance of 2. Sets share the hold-out, whose part no mean makes smaller; each has other training
    images, whose part falls with the number of sets.
    """
    of_heldout, of_training = 1.0, 2.0
    return math.sqrt((of_heldout + of_training / sets) / (of_heldout + of_training))


def _first_of_each(labels: Tensor, counts: Tensor) -> Tensor:
    """Rows of the first images of each class, so many (or all there are) as `counts` has, in order of the
    classes."""
    order = labels.argsort(stable=True)
    available = torch.bincount(labels, minlength=len(counts))
    rank = torch.arange(len(labels)) - (available.cumsum(0) - available)[labels[order]]
    return order[rank < counts[labels[order]]]


def _excess(real: Tensor, training: Tensor, heldout: Tensor) -> dict[str, float]:
    """By how much `training` exceeds `heldout`, of equal counts and both beside `real`, in each metric."""

    def metrics(drawn: Tensor) -> dict[str, float]:
        some = MAX_BLOCK // 2
        near = manifold(real[:some], drawn[:some])
        return {
            "fid_judge": frechet_distance(real, drawn),
            "kid_judge": kernel_distances(real, drawn, subsets=1).item(),
            **{key: values.mean().item() for key, values in near.items()},
        }

    of_training, of_heldout = metrics(training), metrics(heldout)
    return {key: value - of_heldout[key] for key, value in of_training.items()}
