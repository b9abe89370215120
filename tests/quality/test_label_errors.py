"""Labels that look wrong: the rule, its ranking, and folds in which no judge has seen what it is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cgan.data.dataset import Dataset, first_copies, image_digests
from cgan.errors import DataError
from cgan.model.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.label_errors import (
    calibrated,
    folds,
    label_errors,
    out_of_fold,
)

PARAMS = JudgeParams(total_kimg=2.0, batch_size=32, peak_lr=0.2, width=8, seed=1)
CPU = choose_hardware("cpu", "float32")


def drawn(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of 4 classes; one label in eight has little to do with them."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, count)
    found = random.dirichlet(np.ones(4) * 0.6, count)
    found[np.arange(count), labels] += 1.0
    for row in range(3, count, 8):
        found[row] = random.dirichlet(np.ones(4) * 0.3)
    return found / found.sum(axis=1, keepdims=True), labels


def test_the_suspects_are_those_of_cleanlab_in_its_order() -> None:
    """cleanlab 2.9.0, find_label_issues(filter_by="confident_learning", …="normalized_margin")."""
    expected = [35, 155, 75, 91, 147, 115, 83, 139, 99, 67, 27]
    assert label_errors(*drawn(160)).rows.tolist() == expected


def test_calibration_makes_a_judge_as_sure_as_it_is_right_and_changes_no_opinion() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 2000)
    right = random.random(2000) < 0.95
    seen = np.where(right, labels, (labels + 1) % 3)
    found = np.full((2000, 3), 0.2)
    found[np.arange(2000), seen] = 0.6
    sure = calibrated(found, labels)
    np.testing.assert_allclose(sure.sum(axis=1), 1)
    assert (sure.argmax(axis=1) == seen).all()
    assert sure.max(axis=1).mean() == pytest.approx(0.95, abs=0.01)


def test_folds_are_stratified_and_keep_equal_images_together() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (200, 1, 8, 8), dtype=np.uint8)
    images[50:60] = images[3]
    labels = np.repeat(np.arange(4), 50).astype(np.int64)
    fold = folds(labels, 5, first_copies(image_digests(images)), seed=1)
    assert len(set(fold[[3, *range(50, 60)]])) == 1
    for label in (2, 3):
        assert np.bincount(fold[labels == label], minlength=5).tolist() == [10] * 5
    assert (fold == folds(labels, 5, first_copies(image_digests(images)), seed=1)).all()
    assert (fold != folds(labels, 5, first_copies(image_digests(images)), seed=2)).any()


def shades(per_class: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Dark, grey and bright images."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(3), per_class)).astype(np.int64)
    images = random.integers(0, 30, (len(labels), 1, 8, 8)) + 100 * labels[:, None, None, None]
    return torch.from_numpy(images.astype(np.uint8)), labels


def test_judges_that_have_not_seen_a_row_find_its_wrong_label() -> None:
    images, labels = shades(40)
    wrong = [5, 50, 99]
    labels[wrong] = (labels[wrong] + 1) % 3
    data = Dataset(images, torch.from_numpy(labels), {"classes": 3})
    found = label_errors(calibrated(out_of_fold(data, PARAMS, 4, CPU), labels), labels)
    assert set(wrong) <= set(found.rows.tolist()) and len(found) <= 5


def test_a_class_that_would_be_missing_from_a_training_is_an_error_in_words() -> None:
    images, labels = shades(12)
    images[labels == 2] = images[labels == 2][0].clone()
    data = Dataset(images, torch.from_numpy(labels), {"classes": 3})
    with pytest.raises(
        DataError, match="class 2: all its distinct images are in one of the 4 folds"
    ):
        out_of_fold(data, PARAMS, 4, CPU)
