"""Rows whose label looks wrong, by the probabilities that a judge gives to each class."""

import numpy as np
from numpy.typing import NDArray

from cgan.data.images import IntArray, first_copies


def doubtful_labels(
    probabilities: NDArray[np.float64], labels: IntArray, groups: IntArray | None = None
) -> IntArray:
    """The rows in which the likeliest class is not the label, by how much likelier it is, the most doubtful
    first. Probabilities [N, classes], labels [N]. Rows of one of the `groups` [N] stand together, where the
    most doubtful of them would stand alone."""
    margin = probabilities.max(axis=1) - probabilities[np.arange(len(labels)), labels]
    rows = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    rows = rows[np.argsort(-margin[rows], kind="stable")]
    if groups is not None:
        rows = rows[np.argsort(first_copies(groups[rows]), kind="stable")]
    return rows
