"""The confusion matrix as a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgan.pictures.confusion_matrix import confusion_matrix_image


def names(classes: int) -> list[str]:
    return [str(index) for index in range(classes)]


def coloured(picture: np.ndarray) -> np.ndarray:
    """Which pixels are neither white, grey nor black."""
    return np.ptp(picture.astype(int), axis=2) > 40


def test_right_is_blue_and_a_few_errors_are_red_in_their_row_and_column() -> None:
    picture = confusion_matrix_image(np.eye(10, dtype=int) * 100, names(10)).astype(int)
    blue = (picture[..., 2] - picture[..., 0]) > 80
    red = (picture[..., 0] - picture[..., 2]) > 24
    assert blue.sum() > 10 * 40 * 40
    assert not red.any()
    clean = np.eye(4, dtype=int) * 100
    wrong = clean.copy()
    wrong[1, 3] = 30
    changed = confusion_matrix_image(wrong, names(4)).astype(int)
    red_y, red_x = ((changed[..., 0] - changed[..., 2]) > 24).nonzero()
    diagonal_y, diagonal_x = ((changed[..., 2] - changed[..., 0]) > 80).nonzero()
    side_y, side_x = np.ptp(diagonal_y) / 4, np.ptp(diagonal_x) / 4
    assert int((red_y.mean() - diagonal_y.min()) / side_y) == 1
    assert int((red_x.mean() - diagonal_x.min()) / side_x) == 3
    matrix = np.eye(10, dtype=int) * 98
    matrix[4, 9] = 2
    red = confusion_matrix_image(matrix, names(10)).astype(int)
    assert (red[..., 0] - red[..., 2]).max() > 15


def test_rows_are_normalised_so_that_rare_classes_look_like_common_ones() -> None:
    few, many = np.eye(3, dtype=int) * 10, np.eye(3, dtype=int) * 10
    many[2, 2] = 5000
    few_picture, many_picture = (confusion_matrix_image(m, names(3)) for m in (few, many))
    assert np.array_equal(few_picture[80:], many_picture[80:])
    assert not np.array_equal(few_picture[:80], many_picture[:80]), "the title tells the count"


@pytest.mark.parametrize("classes", [2, 10, 24, 40, 300])
def test_any_number_of_classes_gives_a_picture_of_bounded_size(classes: int) -> None:
    matrix = torch.eye(classes, dtype=torch.int64) * 7
    picture = confusion_matrix_image(matrix, names(classes))
    assert picture.dtype == np.uint8
    assert 100 < picture.shape[0] < 900
    assert 400 < picture.shape[1] < 900
    assert coloured(picture).any()


def test_an_empty_row_and_an_empty_matrix_are_drawn_without_a_warning() -> None:
    matrix = np.eye(3, dtype=int) * 5
    matrix[1] = 0
    assert coloured(confusion_matrix_image(matrix, names(3))).any()
    assert not coloured(confusion_matrix_image(np.zeros((3, 3), int), names(3))).any()


def test_short_names_stand_at_rows_and_columns_and_others_give_way_to_numbers() -> None:
    matrix = np.eye(3, dtype=int)
    numbered = confusion_matrix_image(matrix, names(3))
    assert not np.array_equal(confusion_matrix_image(matrix, ["a", "b", "c"]), numbered)
    for other in (["a", "b", "an elephant"], ["a", "b", "猫"]):
        assert np.array_equal(confusion_matrix_image(matrix, other), numbered)
