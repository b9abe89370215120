"""Spurious correlations: quantities such as brightness, which do not depend on an image's form, and yet
predict its class.

A classifier may learn such a quantity in place of the form (Geirhos et al., Nature Machine Intelligence 2,
2020), and a generator draws it. Some belong to what the classes are: a digit one has less ink than others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgan.images import Images, IntArray
from cgan.text import listed, percent

MAX_IMAGES = 10_000  # of more, so many are picked at random
FOLDS = 5
MIN_BINS, MAX_BINS = 4, 20
# Limits of Youden's J, from which a quantity is reported: of its mean over the classes, and of a single
# class. J is 0 for a quantity that predicts nothing, and 1 for one that predicts everything. Chosen on five
# data sets: docs/log.md.
MIN_MEAN_J, MIN_CLASS_J = 0.2, 0.5
PERMUTATIONS, LEVEL = 99, 0.05  # of the test, which is for all quantities together

# The name of each quantity in a sentence, and the format of its values.
QUANTITIES = {
    "brightness": ("brightness", "{:.0f} of 255"),
    "contrast": ("contrast", "{:.0f} of 255"),
    "sharpness": ("sharpness", "{:.2f}"),
    "size": ("the size of the original picture", "{:,.0f} pixels"),
    "aspect": ("the shape of the original picture", "width ÷ height {:.2f}"),
}
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """How well a rule by one quantity alone predicts the classes, cross-validated."""

    quantity: str
    accuracy: float
    """The mean over the classes of how many of their images the rule names right, 0 to 1."""
    chance: float
    """The accuracy of guessing."""
    best_class: str
    """The class that the rule predicts best, by Youden's J."""
    true_positive_rate: float
    """How many images of this class the rule names so, 0 to 1."""
    false_positive_rate: float
    """How many images of other classes it names so, 0 to 1, mean over these classes."""
    class_median: float
    """The median of the quantity in this class."""
    median: float
    """The median in all images."""

    @property
    def youden_j(self) -> float:
        return self.true_positive_rate - self.false_positive_rate


def spurious_correlations(images: Images, copy_of: IntArray) -> list[Correlation]:
    """The quantities that predict the classes, the best first. `copy_of` int64 [N]: for each image the first
    one equal to it.

    The rule names the class that is most frequent, for its size, among the other images with about this value
    (quantile bins, each with half of both neighbours); images of a group, and copies, are in one fold. A
    permutation test keeps chance out: if labels are exchanged between groups, at most LEVEL of the data sets
    have any correlation.
    """
    units = copy_of if images.groups is None else images.groups[copy_of]
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(images))[:MAX_IMAGES])
    labels, classes = images.labels[rows], images.classes
    quantities = _measure(images, rows)
    bins = {name: _bins(values, len(rows) / classes) for name, values in quantities.items()}
    units = np.unique(units[rows], return_inverse=True)[1]
    folds = (rng.permutation(units.max() + 1) % FOLDS)[units]
    found = list[Correlation]()
    for name, values in quantities.items():
        confusion = _confusion(bins[name], labels, folds, classes)
        rates = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        true_positive_rates = rates.diagonal()
        false_positive_rates = (rates.sum(axis=0) - true_positive_rates) / (classes - 1)
        youden_j = true_positive_rates - false_positive_rates
        best = int(youden_j.argmax())
        if youden_j.mean() < MIN_MEAN_J and youden_j[best] < MIN_CLASS_J:
            continue
        correlation = Correlation(
            quantity=name,
            accuracy=float(true_positive_rates.mean()),
            chance=1 / classes,
            best_class=images.class_names[best],
            true_positive_rate=float(true_positive_rates[best]),
            false_positive_rate=float(false_positive_rates[best]),
            class_median=float(np.median(values[labels == best])),
            median=float(np.median(values)),
        )
        found.append(correlation)
    if not found:
        return []
    limit = _accuracy_by_chance(bins, labels, units, folds, classes, rng)
    significant = [correlation for correlation in found if correlation.accuracy > limit]
    return sorted(significant, key=lambda correlation: -correlation.accuracy)


def notes_on(correlations: list[Correlation]) -> list[str]:
    """A note for readers; none without correlations."""
    if not correlations:
        return []
    best = max(correlations, key=lambda correlation: correlation.youden_j)
    digits = int(best.chance < 0.1)
    phrases = [
        f"{QUANTITIES[each.quantity][0]} alone {'' if number else 'tells the classes '}in "
        f"{percent(each.accuracy, digits)}"
        for number, each in enumerate(correlations)
    ]
    start = listed(phrases)
    name, form = QUANTITIES[best.quantity]
    medians = [form.format(median) for median in (best.class_median, best.median)]
    return [
        f"{start[0].upper()}{start[1:]} of the images, as a mean over the classes (chance "
        f"{percent(best.chance, digits)}). {name[0].upper()}{name[1:]} alone recognises "
        f"{percent(best.true_positive_rate, 0)} of the images of class {best.best_class}, and takes "
        f"{percent(best.false_positive_rate, 0)} of the others for it (median {medians[0]}, of all images "
        f"{medians[1]}). Where the classes themselves differ in this, it is no fault. Where they were "
        "photographed or scanned differently, classifiers learn that in place of the form, and drawings show "
        "it."
    ]


def _measure(images: Images, rows: IntArray) -> dict[str, FloatArray]:
    """The quantities of the images at `rows`, float64 [rows] each. Sharpness is the root mean square of the
    difference of neighbouring pixels, as a fraction of the standard deviation: so it does not depend on
    contrast."""
    measured = list[NDArray[np.float32]]()
    for chunk in np.array_split(rows, len(rows) // 1000 + 1):
        grey = images.pixels[chunk].mean(axis=1, dtype=np.float32)
        deviation = grey.std(axis=(1, 2))
        steps = [np.square(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        sharpness = np.sqrt(sum(steps) / 2) / np.maximum(deviation, 1e-6)
        measured.append(np.stack([grey.mean(axis=(1, 2)), deviation, sharpness]))
    values = np.concatenate(measured, axis=1).astype(np.float64)
    quantities = dict(zip(("brightness", "contrast", "sharpness"), values, strict=True))
    if images.sizes is not None:
        width, height = images.sizes[rows].T.astype(np.float64)
        quantities |= {"size": width * height, "aspect": width / height}
    return quantities


def _bins(values: FloatArray, images_per_class: float) -> IntArray:
    """The bin of each value; fewer bins for fewer images."""
    count = int(np.clip(np.sqrt(2 * images_per_class), MIN_BINS, MAX_BINS))
    ends = np.unique(np.quantile(values, np.arange(1, count) / count))
    return np.searchsorted(ends, values, side="right")


def _confusion(bins: IntArray, labels: IntArray, folds: IntArray, classes: int) -> IntArray:
    """The rule's confusion matrix: int64 [classes, classes], rows are the labels, columns the predictions."""
    counts, predictions = _rule(bins, labels, folds, classes)
    confusion = np.zeros((classes, classes), np.int64)
    for fold_counts, fold_predictions in zip(counts, predictions, strict=True):
        np.add.at(confusion.T, fold_predictions, fold_counts.T)
    return confusion


def _rule(
    bins: IntArray, labels: IntArray, folds: IntArray, classes: int
) -> tuple[IntArray, IntArray]:
    """The number of images in each fold, class and bin, [FOLDS, classes, bins], and the class that the rule
    of the other folds predicts there, [FOLDS, bins]."""
    shape = FOLDS, classes, int(bins.max()) + 1
    cells = (folds * classes + labels) * shape[2] + bins
    counts = np.bincount(cells, minlength=FOLDS * classes * shape[2]).reshape(shape)
    others = (counts.sum(axis=0) - counts).astype(np.float64)
    others /= np.maximum(others.sum(axis=2, keepdims=True), 1)
    smooth = others.copy()
    smooth[..., 1:] += others[..., :-1] / 2
    smooth[..., :-1] += others[..., 1:] / 2
    return counts, smooth.argmax(axis=1)


def _accuracy_by_chance(
    bins: Mapping[str, IntArray],
    labels: IntArray,
    units: IntArray,
    folds: IntArray,
    classes: int,
    rng: np.random.Generator,
) -> float:
    """The accuracy that the best quantity exceeds in LEVEL of the permutations. All images of one class in
    one unit get the same permuted label."""
    blocks, block_of_image = np.unique(units * classes + labels, return_inverse=True)
    best_accuracies = list[float]()
    for _ in range(PERMUTATIONS):
        permuted = rng.permutation(blocks % classes)[block_of_image]
        sizes = np.maximum(np.bincount(permuted, minlength=classes), 1)
        accuracies = list[float]()
        for quantity_bins in bins.values():
            counts, predictions = _rule(quantity_bins, permuted, folds, classes)
            right = np.take_along_axis(counts, predictions[:, None], axis=1)[:, 0]
            accuracies.append(float((right / sizes[predictions]).sum() / classes))
        best_accuracies.append(max(accuracies))
    return sorted(best_accuracies)[round((1 - LEVEL) * (PERMUTATIONS + 1)) - 1]
