"""Labels that look wrong: their order, by the probabilities of a judge."""

import numpy as np

from cgan.page.image_facts import doubtful_labels


def test_the_least_likely_label_comes_first_with_its_group() -> None:
    """Beside the likeliest class."""
    probabilities = np.array([[0.5, 0.49, 0.01], [0.6, 0.1, 0.3], [0, 0.2, 0.8]])
    found = doubtful_labels(probabilities, np.array([1, 1, 2]))
    assert found.tolist() == [1, 0]
    sure, groups = np.array([0.7, 0.9, 0.6, 0.8, 0.65]), np.array([4, 9, 4, 4, 9])
    found = doubtful_labels(np.stack([sure, 1 - sure], 1), np.ones(5, np.int64), groups)
    assert found.tolist() == [1, 4, 3, 0, 2]
