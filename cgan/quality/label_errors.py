"""Rows whose label looks wrong, by the probabilities that a judge gives to each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgan.images import first_copies

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]


class Suspects(NamedTuple):
    """The most doubtful first: `rows` int64 [K]; `suggested` int64 [K]: the likeliest class; `confidence`
    float64 [K]: probability of the suggested class less that of the label."""

    rows: Labels
    suggested: Labels
    confidence: NDArray[np.float64]

    def first(self, count: int) -> Suspects:
        return Suspects(self.rows[:count], self.suggested[:count], self.confidence[:count])


def doubtful_labels(
    probabilities: Probabilities, labels: Labels, groups: Labels | None = None
) -> Suspects:
    """The rows in which the likeliest class is not the label. Probabilities [N, classes], labels [N]. Rows of
    one of the `groups` [N] stand together, where the most doubtful of them would stand alone."""
    likeliest = probabilities.argmax(axis=1).astype(np.int64)
    rows = np.flatnonzero(likeliest != labels)
    margin = probabilities[rows, likeliest[rows]] - probabilities[rows, labels[rows]]
    order = np.argsort(-margin, kind="stable")
    if groups is not None:
        place_of_group = first_copies(groups[rows][order])
        order = order[np.argsort(place_of_group, kind="stable")]
    return Suspects(rows[order], likeliest[rows][order], margin[order])
