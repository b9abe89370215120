"""Spurious correlations: numbers that say nothing of an image's form, such as its brightness, and yet tell
which class it is of.

A classifier may learn such a number in place of the form (Geirhos et al., Nature Machine Intelligence 2,
2020), and a generator draws it. Some belong to what the classes are: a digit one has less ink than others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgan.images import Images, IntArray
from cgan.text import listed, percent

MOST_IMAGES = 10_000  # that are looked at, chosen at random
FOLDS = 5
FEWEST_BINS, MOST_BINS = 4, 20
# Chosen on five data sets: docs/log.md. Both are 0 for a number that tells nothing, and 1 for one that tells
# everything.
TELLS_CLASSES = 0.2  # the mean over the classes
TELLS_A_CLASS = 0.5
PERMUTATIONS, LEVEL = 99, 0.05  # for all numbers together

# What each number is called, and how it is written.
NUMBERS = {
    "brightness": ("brightness", "{:.0f} of 255"),
    "contrast": ("contrast", "{:.0f} of 255"),
    "sharpness": ("sharpness", "{:.2f}"),
    "size": ("the size of the original picture", "{:,.0f} pixels"),
    "aspect": ("the shape of the original picture", "width ÷ height {:.2f}"),
}
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """How well one number alone tells the classes.

    `accuracy`: of a rule by that number, cross-validated, mean over the classes; by chance it is `chance`.
    `told`: the class that is told best, by that rule `share_of_told` of its images are named so, and
    `share_of_others` of those of other classes. `median_of_told`, `median`: of the number, of that class and
    of all.
    """

    number: str
    accuracy: float
    chance: float
    told: str
    share_of_told: float
    share_of_others: float
    median_of_told: float
    median: float

    @property
    def gain(self) -> float:
        """How well it tells the class that is told best, from 0 to 1: Youden's J."""
        return self.share_of_told - self.share_of_others


def spurious_correlations(images: Images, copy_of: IntArray) -> list[Correlation]:
    """The numbers that tell the classes, the best first. `copy_of` int64 [N]: the first image equal to it.

    The rule names the class that is most frequent, for its size, among the other images about as bright
    (quantile bins, each with half of both neighbours); images of a group, and copies, are in one fold. That
    no number is called in the absence of any relation is by a permutation test: with labels exchanged between
    groups, at most LEVEL of the data sets have any.
    """
    units = copy_of if images.groups is None else images.groups[copy_of]
    random = np.random.default_rng(0)
    rows = np.sort(random.permutation(len(images))[:MOST_IMAGES])
    labels, classes = images.labels[rows], images.classes
    numbers = _numbers(images, rows)
    bins = {name: _bins(values, len(rows) / classes) for name, values in numbers.items()}
    units = np.unique(units[rows], return_inverse=True)[1]
    folds = (random.permutation(units.max() + 1) % FOLDS)[units]
    found = list[Correlation]()
    for name, values in numbers.items():
        named = _named(bins[name], labels, folds, classes)
        shares = named / np.maximum(named.sum(axis=1, keepdims=True), 1)
        of_told = shares.diagonal()
        of_others = (shares.sum(axis=0) - of_told) / (classes - 1)
        gains = of_told - of_others  # Youden's J of each class
        best = int(gains.argmax())
        if gains.mean() >= TELLS_CLASSES or gains[best] >= TELLS_A_CLASS:
            each = Correlation(
                number=name,
                accuracy=float(of_told.mean()),
                chance=1 / classes,
                told=images.class_names[best],
                share_of_told=float(of_told[best]),
                share_of_others=float(of_others[best]),
                median_of_told=float(np.median(values[labels == best])),
                median=float(np.median(values)),
            )
            found.append(each)
    if not found:
        return []
    limit = _accuracy_by_chance(bins, labels, units, folds, classes, random)
    return sorted(
        (each for each in found if each.accuracy > limit), key=lambda each: -each.accuracy
    )


def in_words(found: list[Correlation]) -> list[str]:
    """A note for readers; none where nothing was found."""
    if not found:
        return []
    best = max(found, key=lambda each: each.gain)
    digits = int(best.chance < 0.1)
    shares = [
        f"{NUMBERS[each.number][0]} alone tells the classes in {percent(each.accuracy, digits)}"
        for each in found
    ]
    told = listed([shares[0], *(share.replace("tells the classes ", "") for share in shares[1:])])
    name, form = NUMBERS[best.number]
    medians = [form.format(median) for median in (best.median_of_told, best.median)]
    return [
        f"{told[0].upper()}{told[1:]} of the images (chance {percent(best.chance, digits)}). Best told is "
        f"{best.told}, by {name}: {percent(best.share_of_told, 0)} of its images are named so, and "
        f"{percent(best.share_of_others, 0)} of others (median {medians[0]}, of all images "
        f"{medians[1]}). Where the classes themselves differ in this, it is no fault. Where they were "
        "photographed or scanned differently, classifiers learn that in place of the form, and drawings show "
        "it."
    ]


def _numbers(images: Images, rows: IntArray) -> dict[str, FloatArray]:
    """Of each image: float64 [rows]. Sharpness is free of contrast: a part of the standard deviation."""
    of_chunks = list[NDArray[np.float32]]()
    for chunk in np.array_split(rows, len(rows) // 1000 + 1):
        grey = images.pixels[chunk].mean(axis=1, dtype=np.float32)
        deviation = grey.std(axis=(1, 2))
        steps = [np.square(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        sharpness = np.sqrt(sum(steps) / 2) / np.maximum(deviation, 1e-6)
        of_chunks.append(np.stack([grey.mean(axis=(1, 2)), deviation, sharpness]))
    values = np.concatenate(of_chunks, axis=1).astype(np.float64)
    numbers = dict(zip(("brightness", "contrast", "sharpness"), values, strict=True))
    if images.sizes is not None:
        width, height = images.sizes[rows].T.astype(np.float64)
        numbers |= {"size": width * height, "aspect": width / height}
    return numbers


def _bins(values: FloatArray, images_a_class: float) -> IntArray:
    """The bin of each value; of few images there are few."""
    count = int(np.clip(np.sqrt(2 * images_a_class), FEWEST_BINS, MOST_BINS))
    ends = np.unique(np.quantile(values, np.arange(1, count) / count))
    return np.searchsorted(ends, values, side="right")


def _named(bins: IntArray, labels: IntArray, folds: IntArray, classes: int) -> IntArray:
    """How often the rule names which class: int64 [classes, classes], rows are the labels."""
    counts, names = _rule(bins, labels, folds, classes)
    named = np.zeros((classes, classes), np.int64)
    for of_fold, name in zip(counts, names, strict=True):
        np.add.at(named.T, name, of_fold.T)
    return named


def _rule(
    bins: IntArray, labels: IntArray, folds: IntArray, classes: int
) -> tuple[IntArray, IntArray]:
    """The images of each fold, class and bin, [FOLDS, classes, bins], and the class that the rule of the
    other folds names there, [FOLDS, bins]."""
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
    random: np.random.Generator,
) -> float:
    """The accuracy of the best of the numbers, which LEVEL of the permutations exceed. What is permuted is
    the label of all images of a class in a unit."""
    parts, part_of = np.unique(units * classes + labels, return_inverse=True)
    best = list[float]()
    for _ in range(PERMUTATIONS):
        permuted = random.permutation(parts % classes)[part_of]
        sizes = np.maximum(np.bincount(permuted, minlength=classes), 1)
        accuracies = list[float]()
        for of_number in bins.values():
            counts, names = _rule(of_number, permuted, folds, classes)
            right = np.take_along_axis(counts, names[:, None], axis=1)[:, 0]
            accuracies.append(float((right / sizes[names]).sum() / classes))
        best.append(max(accuracies))
    return sorted(best)[round((1 - LEVEL) * (PERMUTATIONS + 1)) - 1]
