"""The difference that drawings make to classifiers, with its interval.

A mean over the classes counts each class alike. The interval has two parts: which images happened to be
tested (their spread within each class, by unit), and which images, generator and seeds a round was trained
with (the rounds' spread). Where rounds are folds, that second part is widened for the images that folds
share in training: Nadeau and Bengio, Inference for the Generalization Error (Machine Learning 52, 2003).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgan.base.report import Interval, Number
from cgan.quality.intervals import critical_t

DRAWN = "drawn"  # the method with drawings
CONFIDENCE = 0.95
WIDER_CONFIDENCE = 0.99
# By chance six units all go one way with probability 1/32 (sign test, two-sided); five with 1/16.
MIN_UNITS = 6

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The answers of one round. `labels` int64 [N] of the tested images, and their `units`, which belong
    together; `right`: by method, bool [N]."""

    labels: Tensor
    units: Tensor
    right: Mapping[str, Tensor]

    def accuracies(self, method: str, classes: int = 0) -> FloatArray:
        """The accuracy of each class, of so many at least; NaN of one that is not tested."""
        right = self.labels.bincount(self.right[method].double(), minlength=classes)
        accuracies: FloatArray = (right / self.labels.bincount(minlength=classes)).numpy()
        return accuracies

    def mean_accuracy(self, method: str) -> float:
        """The mean of the classes' accuracies."""
        return float(np.nanmean(self.accuracies(method)))


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """The answers of all rounds."""
    methods = outcomes[0].right
    return Outcome(
        labels=torch.cat([each.labels for each in outcomes]),
        units=torch.cat([each.units for each in outcomes]),
        right={name: torch.cat([each.right[name] for each in outcomes]) for name in methods},
    )


@dataclass(frozen=True)
class Difference:
    """Accuracies without and with drawings on `tested` images, and the intervals of their difference at
    CONFIDENCE and at WIDER_CONFIDENCE."""

    without: float
    with_drawings: float
    interval: Interval
    wider_interval: Interval
    tested: int

    @property
    def gain(self) -> Number:
        """The difference of the accuracies, as a fraction; shown in points."""
        value = self.with_drawings - self.without
        return Number(value=value, interval=self.interval, kind="points")


@dataclass(frozen=True)
class Effect:
    """Drawings beside `baseline`, the best method that costs nothing: the mean over classes, and each."""

    baseline: str
    overall: Difference
    by_class: dict[int, Difference]


def effect(outcomes: Sequence[Outcome], methods: Sequence[str], folded: bool) -> Effect:
    """The effect beside the best of `methods`, those without drawings, by the mean over classes of all rounds
    together.

    `folded`: each image is tested in one round, by networks that were trained on the other rounds' images;
    else all rounds test the same images. To choose the method in each round by the others is no way out: what
    is best in all folds but one is worse in that one, for together they are the same images.
    """
    images = pooled(outcomes)
    baseline = max(methods, key=images.mean_accuracy)
    accuracies = np.stack([images.accuracies(method) for method in (baseline, DRAWN)])
    classes = accuracies.shape[1]
    tested_labels = images.labels.unique().numpy()
    variances = np.zeros(classes)
    variances[tested_labels] = [_variance_of_images(images, baseline, n) for n in tested_labels]
    # Of each round and class.
    counts = np.stack([each.labels.bincount(minlength=classes).numpy() for each in outcomes])
    gains = np.stack(
        [each.accuracies(DRAWN, classes) - each.accuracies(baseline, classes) for each in outcomes]
    )
    tested = counts.sum(axis=0) if folded else counts[0]
    # The variance is that of all rounds' images, of which a round tests a part.
    noise = variances * tested * (counts > 0) / counts.clip(min=1)

    def difference(labels: NDArray[np.int64]) -> Difference:
        """The difference of the mean over these classes."""
        rounds = counts[:, labels].any(axis=1)  # those that test one of them
        classes_tested = (counts[rounds][:, labels] > 0).sum(axis=1)
        gains_of_rounds = np.nanmean(gains[rounds][:, labels], axis=1)
        noise_of_rounds = noise[rounds][:, labels].sum(axis=1) / classes_tested**2
        error_of_images = math.sqrt(variances[labels].sum()) / len(labels)
        error_of_rounds = math.sqrt(_variance_of_rounds(gains_of_rounds, noise_of_rounds, folded))
        without, with_drawings = accuracies[:, labels].mean(axis=1).tolist()
        intervals = []
        for level in (CONFIDENCE, WIDER_CONFIDENCE):
            t = critical_t(max(1, len(gains_of_rounds) - 1), level)
            half_width = math.hypot(_z(level) * error_of_images, t * error_of_rounds)
            middle = with_drawings - without
            intervals.append((max(-1.0, middle - half_width), min(1.0, middle + half_width)))
        narrow, wide = intervals
        return Difference(without, with_drawings, narrow, wide, int(tested[labels].sum()))

    by_class = {label: difference(np.array([label])) for label in tested_labels.tolist()}
    return Effect(baseline, difference(tested_labels), by_class)


def _z(level: float) -> float:
    """Half the width of a normal interval, in standard errors."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _variance_of_images(images: Outcome, baseline: str, label: int) -> float:
    """The variance of the mean gain of a class, from the spread of its tested units."""
    rows = images.labels == label
    gains = (images.right[DRAWN].double() - images.right[baseline].double())[rows].numpy()
    unit_of = np.unique(images.units[rows].numpy(), return_inverse=True)[1]
    sums = np.bincount(unit_of, gains - gains.mean())
    units = len(sums)
    variance = float((sums**2).sum()) / len(gains) ** 2 * units / max(1, units - 1)
    # Units that all go one way have no variance: as if one more had gone the other way. Fewer than
    # MIN_UNITS show nothing in a sign test: the interval reaches 1 to each side.
    return max(variance, units**-2 if units >= MIN_UNITS else _z(CONFIDENCE) ** -2)


def _variance_of_rounds(gains: FloatArray, noise: FloatArray, folded: bool) -> float:
    """The variance of the mean gain, from the spread of the rounds; 0 of a single one. `noise`: the variance
    that its tested images give each gain."""
    count = len(gains)
    if count < 2:
        return 0.0
    spread = float(gains.var(ddof=1))
    if folded:  # each fold tests other images, whose noise is in the spread too
        spread = max(0.0, spread - float(noise.mean()))
    # Folds share the images that they learn from: the ratio of tested to learnt images is added.
    return spread * (1 / count + (1 / (count - 1) if folded else 0.0))
