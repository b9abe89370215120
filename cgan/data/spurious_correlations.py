"""Spurious correlations: quantities such as brightness, which do not depend on an image's form, and yet
predict its class. A classifier may learn one in place of the form (Geirhos et al., Nature Machine
Intelligence 2, 2020). Some belong to what the classes are: a digit one has less ink than others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgan.base.text import listed, percent
from cgan.data.arrays import IntArray
from cgan.data.images import Images

MAX_MEASURED_IMAGES = 10_000  # of more, so many are picked at random
BINS = 50
MIN_YOUDEN_J = 0.5  # from which a quantity is reported: 0 predicts nothing, 1 everything
LABEL_PERMUTATIONS, SIGNIFICANCE = 99, 0.05  # of one test, of all quantities and classes together

# The name of each quantity in a sentence, and the format of its values.
QUANTITIES = {
    "brightness": ("brightness", "{:.0f}"),
    "contrast": ("contrast", "{:.0f}"),
    "sharpness": ("sharpness", "{:.2f}"),
    "size": ("the original picture's number of pixels", "{:,.0f}"),
    "aspect": ("the original picture's width ÷ height", "{:.2f}"),
}
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """A range of a quantity, `lowest` to `highest`, in which the images of one class lie, and few others:
    the shares of both, from 0 to 1."""

    quantity: str
    class_name: str
    lowest: float
    highest: float
    of_class: float
    of_others: float


def spurious_correlations(images: Images, copy_of: IntArray) -> list[Correlation]:
    """The quantities that predict a class, the best first, each with the class that it predicts best.
    `copy_of` int64 [N]: for each image the first one equal to it.

    The statistic is Youden's J of the best range: the proportion of the class that lies in it, less that of
    all others. By a permutation test, which exchanges labels between groups of images and of copies, at most
    SIGNIFICANCE of the data sets without a correlation have one reported.
    """
    units = copy_of if images.groups is None else images.groups[copy_of]
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(images))[:MAX_MEASURED_IMAGES])
    labels, classes = images.labels[rows], images.classes
    quantities = _measure(images, rows)
    bins = {
        name: np.digitize(values, np.unique(np.quantile(values, np.arange(1, BINS) / BINS)))
        for name, values in quantities.items()
    }
    # All images of one class in one unit get the same permuted label.
    blocks, block_of_image = np.unique(units[rows] * classes + labels, return_inverse=True)
    by_chance = []
    for _ in range(LABEL_PERMUTATIONS):
        permuted = rng.permutation(blocks % classes)[block_of_image]
        best = [_best_ranges(each, permuted, classes)[0].max() for each in bins.values()]
        by_chance.append(max(best))
    rank = round((1 - SIGNIFICANCE) * (LABEL_PERMUTATIONS + 1))
    limit = max(MIN_YOUDEN_J, sorted(by_chance)[rank - 1])
    found = list[Correlation]()
    for name, values in quantities.items():
        youden_j, firsts, lasts = _best_ranges(bins[name], labels, classes)
        label = int(youden_j.argmax())
        if youden_j[label] > limit:
            inside = (bins[name] >= firsts[label]) & (bins[name] <= lasts[label])
            shares = (float(inside[(labels == label) == own].mean()) for own in (True, False))
            ends = float(values[inside].min()), float(values[inside].max())
            found.append(Correlation(name, images.class_names[label], *ends, *shares))
    return sorted(found, key=lambda each: each.of_others - each.of_class)


def _best_ranges(
    bins: IntArray, labels: IntArray, classes: int
) -> tuple[FloatArray, IntArray, IntArray]:
    """Youden's J of the range of bins that predicts each class best, its first and last bin; [classes]."""
    count = int(bins.max()) + 1
    cells = np.bincount(bins * classes + labels, minlength=count * classes)
    of_class = cells.reshape(count, classes).astype(np.float64)
    of_others = of_class.sum(axis=1, keepdims=True) - of_class
    of_class /= np.maximum(of_class.sum(axis=0), 1)
    of_others /= np.maximum(of_others.sum(axis=0), 1)
    difference = np.zeros((count + 1, classes))  # of both distribution functions
    difference[1:] = np.cumsum(of_class - of_others, axis=0)
    rise = difference - np.minimum.accumulate(difference)
    ends = rise.argmax(axis=0)
    before_end = np.arange(count + 1)[:, None] <= ends
    starts = np.where(before_end, difference, np.inf).argmin(axis=0)
    return rise.max(axis=0), starts, ends - 1


def _measure(images: Images, rows: IntArray) -> dict[str, FloatArray]:
    """The quantities of the images at `rows`, float64 [rows] each. Sharpness is the root mean square of the
    difference of neighbouring pixels over the standard deviation, and so free of contrast."""
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


def notes_on(correlations: list[Correlation]) -> list[str]:
    """A note for readers; none without correlations."""
    phrases = []
    for each in correlations:
        name, form = QUANTITIES[each.quantity]
        phrases.append(
            f"{name} from {form.format(each.lowest)} to {form.format(each.highest)} has "
            f"{percent(each.of_class, 0)} of {each.class_name} and {percent(each.of_others, 0)} of the others"
        )
    if not phrases:
        return []
    return [
        f"A class can be told without its form: {listed(phrases)}. Where the classes were photographed or "
        "scanned differently, classifiers learn that in place of the form, and drawings show it."
    ]
