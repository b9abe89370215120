"""Which labels look wrong: confident learning, on the probabilities that judges give to each class.

Each image is judged by one that has not seen it: each fold by a judge trained on the others (`out_of_fold`).

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels (Journal of
Artificial Intelligence Research 70, 2021; arXiv:1911.00068). An image counts as one of class j with
confidence when its probability of j is at least the mean one of the images that are labelled j. Where
that class is not the label, the label is suspect. That is `cleanlab`'s filter `confident_learning`, and a
test compares: with its figures, but without its packages.

A mean tells little of a network that is never quite sure, as the judge is, whose labels are smoothed.
`calibrated` makes its probabilities as sure as they are right, with one temperature (Guo et al., On
Calibration of Modern Neural Networks, ICML 2017). Of flipped labels that finds a third more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.data.dataset import Dataset, first_copies, image_digests
from cgan.errors import DataError
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Progress, look, silent, train_judge

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]

TEMPERATURES = np.geomspace(0.2, 2.0, 47)
MAX_CALIBRATED = 5000  # images


@dataclass(frozen=True)
class Suspects:
    """Rows whose label looks wrong, the most doubtful first.

    `rows` int64 [K]; `suggested` int64 [K]: the class seen instead; `confidence` float64 [K]: probability
    of the suggested class less that of the label, from -1 (the label is right) to 1.
    """

    rows: Labels
    suggested: Labels
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> Suspects:
        return Suspects(self.rows[:count], self.suggested[:count], self.confidence[:count])


def calibrated(probabilities: Probabilities, labels: Labels) -> Probabilities:
    """The same with the temperature at which the labels are likeliest. For probabilities of images that the
    judge has not seen: of others it is too sure already."""
    random = np.random.default_rng(0).permutation(len(labels))[:MAX_CALIBRATED]
    some, theirs = np.log(probabilities[random].clip(1e-30)), labels[random]

    def loss(temperature: float) -> float:
        sure = some / temperature
        total = np.logaddexp.reduce(sure, axis=1)
        return float((total - sure[np.arange(len(theirs)), theirs]).mean())

    best = min(TEMPERATURES, key=loss)
    sharp = np.log(probabilities.clip(1e-30)) / best
    found: Probabilities = np.exp(sharp - np.logaddexp.reduce(sharp, axis=1)[:, None])
    return found


def confident_classes(probabilities: Probabilities, labels: Labels) -> Labels:
    """The class that each image shows with confidence, -1 where it shows none: the confident joint's rule.

    Probabilities [N, classes], given labels [N] → int64 [N]. Of several classes the likeliest counts.
    """
    classes = probabilities.shape[1]
    thresholds = np.ones(classes)
    for label in range(classes):
        own = probabilities[labels == label, label]
        if len(own):
            thresholds[label] = own.mean()
    sure = probabilities >= thresholds - 1e-6  # a class's only image is sure of itself
    likeliest = np.where(sure, probabilities, -1.0).argmax(axis=1)
    return np.where(sure.any(axis=1), likeliest, -1).astype(np.int64)


def label_errors(probabilities: Probabilities, labels: Labels) -> Suspects:
    """Images off the diagonal of the confident joint, by normalised margin."""
    shown = confident_classes(probabilities, labels)
    return _ranked(np.flatnonzero((shown >= 0) & (shown != labels)), shown, probabilities, labels)


def doubtful_labels(probabilities: Probabilities, labels: Labels) -> Suspects:
    """Images in which the likeliest class is not the label: for a judge that has seen some of the labels,
    and whose mean confidence is therefore no measure."""
    likeliest = probabilities.argmax(axis=1).astype(np.int64)
    return _ranked(np.flatnonzero(likeliest != labels), likeliest, probabilities, labels)


def _ranked(rows: Labels, shown: Labels, probabilities: Probabilities, labels: Labels) -> Suspects:
    margin = probabilities[rows, shown[rows]] - probabilities[rows, labels[rows]]
    order = np.argsort(-margin, kind="stable")
    return Suspects(rows[order], shown[rows][order], margin[order])


def folds(labels: Labels, count: int, groups: Labels, seed: int) -> Labels:
    """The fold of each image, int64 [N], 0 to count - 1: stratified, equal images (`groups`, as
    `dataset.first_copies` has them) in one fold, so that no judge has seen what it is asked about."""
    random = np.random.default_rng(seed).permutation(len(labels))
    firsts = np.flatnonzero(groups == np.arange(len(labels)))
    firsts = firsts[np.lexsort((random[firsts], labels[firsts]))]
    found = np.zeros(len(labels), np.int64)
    found[firsts] = np.arange(len(firsts)) % count  # class by class, in turn
    return found[groups]


def out_of_fold(
    data: Dataset, params: JudgeParams, count: int, hardware: Hardware, progress: Progress = silent
) -> Probabilities:
    """float64 [N, classes], of judges trained by `params` on the other `count` - 1 folds of `data`.

    Raises DataError where a class has too few images: some judge would never see it.
    """
    labels = data.labels.numpy()
    fold = folds(labels, count, first_copies(image_digests(data.images.numpy())), params.seed)
    for label in np.unique(labels):
        if len(np.unique(fold[labels == label])) == 1:
            raise DataError(
                f"class {label}: all its distinct images are in one of the {count} folds, so that "
                "no judge can learn it from the others. Add images of this class, or remove it."
            )
    found = np.zeros((len(labels), data.classes))
    for number in range(count):
        inside, outside = (
            torch.from_numpy(where.nonzero()[0]) for where in (fold == number, fold != number)
        )
        judge = train_judge(
            Dataset(data.images[outside], data.labels[outside], data.metadata),
            params,
            hardware.device,
            hardware.precision,
            functools.partial(
                progress,
                f"judge {number + 1} of {count}",
                images_a_step=min(params.batch_size, len(data) - len(inside)),
            ),
        )
        seen = look(judge, data.images[inside]).logits
        found[inside.numpy()] = seen.double().softmax(dim=1).numpy()
    return found
