"""The difference that drawings make to classifiers, with its interval.

A mean over the classes counts each class alike. The interval has two parts: which images happened to be
tested (their spread within each class, by unit), and which images, generator and seeds a round was trained
with (the rounds' spread). Where rounds are folds, that second part is widened for the images that folds
share in training: Nadeau and Bengio, Inference for the Generalization Error (Machine Learning 52, 2003).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from cgan.evaluation import Interval
from cgan.quality.intervals import critical_t

DRAWN = "drawn"  # the method with drawings
CONFIDENCE, WIDER_CONFIDENCE = 0.95, 0.99  # of intervals
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # half the width of an interval, in standard errors
# By chance six units all go one way with probability 1/32 (sign test, two-sided); five with 1/16.
MIN_UNITS = 6


@dataclass(frozen=True)
class Outcome:
    """The answers of one round. `labels` int64 [N] of the tested images; `units` int64 [N]: images of one
    unit belong together; `right`: by method, bool [N], or of several rounds how often, float64 [N]."""

    labels: Tensor
    units: Tensor
    right: Mapping[str, Tensor]

    def accuracies(self, method: str) -> dict[int, float]:
        """The accuracy of each class that is tested."""
        right = self.right[method].double()
        labels = self.labels.unique().tolist()
        return {label: float(right[self.labels == label].mean()) for label in labels}

    def mean_accuracy(self, method: str) -> float:
        """The mean of the classes' accuracies."""
        return statistics.fmean(self.accuracies(method).values())


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """The answers of all rounds."""
    return Outcome(
        labels=torch.cat([outcome.labels for outcome in outcomes]),
        units=torch.cat([outcome.units for outcome in outcomes]),
        right={
            name: torch.cat([outcome.right[name] for outcome in outcomes])
            for name in outcomes[0].right
        },
    )


@dataclass(frozen=True)
class Difference:
    """Accuracies without and with drawings, and the intervals of their difference at CONFIDENCE and at
    WIDER_CONFIDENCE."""

    without: float
    with_drawings: float
    interval: Interval
    wider_interval: Interval
    tested: int

    @property
    def gain(self) -> float:
        return self.with_drawings - self.without

    def in_points(self) -> tuple[str, str]:
        """The gain in percentage points and its interval, as `+1.2` and `-0.3 to +2.7`."""
        return f"{100 * self.gain:+.1f}", " to ".join(f"{100 * end:+.1f}" for end in self.interval)

    @property
    def verdict(self) -> str:
        """`help`, `harm` or `no difference`. Harm has to be clearer: the best of several methods was a little
        lucky."""
        if self.interval[0] > 0:
            return "help"
        return "harm" if self.wider_interval[1] < 0 else "no difference"


@dataclass(frozen=True)
class Effect:
    """Drawings beside the best of the methods that cost nothing: the mean over classes, and each class."""

    baseline: str  # the name of that method
    overall: Difference
    classes: dict[int, Difference]


def effect(outcomes: Sequence[Outcome], methods: Sequence[str], folded: bool) -> Effect:
    """The effect beside the best of `methods`, those without drawings, by the mean over classes of all rounds
    together.

    `outcomes`: of one round at least; of one alone, the interval lacks the spread of rounds. `folded`: each
    image is tested in one round, by networks that were trained on the other rounds' images; else all rounds
    test the same images, in one order. To choose the method in each round by the others is no way out: what
    is best in all folds but one is worse in that one, for together they are the same images.
    """
    images = pooled(outcomes) if folded else _mean(outcomes)
    baseline = max(methods, key=images.mean_accuracy)
    classes = {
        label: _class_result(images, baseline, label) for label in images.labels.unique().tolist()
    }
    return Effect(
        baseline,
        _difference(classes, outcomes, baseline, folded),
        {
            label: _difference({label: result}, outcomes, baseline, folded)
            for label, result in classes.items()
        },
    )


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    """How often each image was right, in rounds that all test the same ones."""
    first = outcomes[0]
    right = {
        name: torch.stack([outcome.right[name].double() for outcome in outcomes]).mean(dim=0)
        for name in first.right
    }
    return replace(first, right=right)


@dataclass(frozen=True)
class _ClassResult:
    """Mean accuracies without and with drawings, and the variance of their difference, on `tested` images."""

    without: float
    with_drawings: float
    variance: float
    tested: int


def _class_result(images: Outcome, baseline: str, label: int) -> _ClassResult:
    rows = images.labels == label
    without, with_drawings = (images.right[name].double()[rows] for name in (baseline, DRAWN))
    difference = (with_drawings - without).numpy()
    unit_of = np.unique(images.units[rows].numpy(), return_inverse=True)[1]
    sums = np.bincount(unit_of, difference - difference.mean())
    count, units = len(difference), len(sums)
    variance = float((sums**2).sum()) / count**2 * units / max(1, units - 1)
    # Units that all go one way have no variance: as if one more had gone the other way. Fewer than
    # MIN_UNITS show nothing in a sign test: with a standard error of 1/Z the interval reaches 1 to each side.
    variance = max(variance, 1 / units**2 if units >= MIN_UNITS else Z**-2)
    return _ClassResult(float(without.mean()), float(with_drawings.mean()), variance, count)


def _difference(
    classes: Mapping[int, _ClassResult], outcomes: Sequence[Outcome], baseline: str, folded: bool
) -> Difference:
    """The difference of the mean over `classes`. Its interval adds the variance of which images were tested
    and that of the rounds."""
    without = statistics.fmean(result.without for result in classes.values())
    with_drawings = statistics.fmean(result.with_drawings for result in classes.values())
    gain = with_drawings - without
    variances = [result.variance for result in classes.values()]
    standard_error_of_images = math.sqrt(sum(variances)) / len(classes)
    results = [result for each in outcomes if (result := _round_result(each, classes, baseline))]
    standard_error_of_rounds = math.sqrt(_variance_of_rounds(results, folded))
    freedom = max(1, len(results) - 1)

    def interval(level: float) -> Interval:
        z, t = NormalDist().inv_cdf((1 + level) / 2), critical_t(freedom, level)
        half_width = math.hypot(z * standard_error_of_images, t * standard_error_of_rounds)
        return max(-1.0, gain - half_width), min(1.0, gain + half_width)

    tested = sum(result.tested for result in classes.values())
    return Difference(
        without, with_drawings, interval(CONFIDENCE), interval(WIDER_CONFIDENCE), tested
    )


@dataclass(frozen=True)
class _RoundResult:
    """A round's gain, mean over the classes that it tests, and the variance that its images give that."""

    gain: float
    variance_of_images: float


def _round_result(
    outcome: Outcome, classes: Mapping[int, _ClassResult], baseline: str
) -> _RoundResult | None:
    """The result of a round; None of one that tests no image of `classes`."""
    changes = outcome.right[DRAWN].double() - outcome.right[baseline].double()
    gains, variances = [], []
    for label, result in classes.items():
        changes_of_class = changes[outcome.labels == label]
        if tested := len(changes_of_class):
            gains.append(float(changes_of_class.mean()))
            # The variance is that of all rounds' images, of which this round tests a part.
            variances.append(result.variance * result.tested / tested)
    if not gains:
        return None
    return _RoundResult(statistics.fmean(gains), sum(variances) / len(variances) ** 2)


def _variance_of_rounds(results: Sequence[_RoundResult], folded: bool) -> float:
    """The variance of the mean gain, from the spread of the rounds; 0 of a single one."""
    if len(results) < 2:
        return 0.0
    spread = statistics.variance(result.gain for result in results)
    if folded:  # each fold tests other images, whose noise is in the spread too
        noise = statistics.fmean(result.variance_of_images for result in results)
        spread = max(0.0, spread - noise)
    # Folds share the images that they learn from: the ratio of tested to learnt images is added.
    count = len(results)
    return spread * (1 / count + (1 / (count - 1) if folded else 0.0))
