"""The confusion matrix as a picture."""

from __future__ import annotations

import numpy as np
import pytest

from cgan.pictures.confusion_matrix import confusion_matrix_image


def drawn(matrix: np.ndarray, names: list[str] | None = None) -> np.ndarray:
    names = names or [str(label) for label in range(len(matrix))]
    return confusion_matrix_image(matrix, names).astype(int)


def test_right_is_blue_and_a_few_errors_are_red_in_their_row_and_column() -> None:
    right = drawn(np.eye(4, dtype=int) * 100)
    blue_y, blue_x = ((right[..., 2] - right[..., 0]) > 80).nonzero()
    assert not ((right[..., 0] - right[..., 2]) > 24).any()
    wrong = np.eye(4, dtype=int) * 98
    wrong[1, 3] = 2
    changed = drawn(wrong)
    red_y, red_x = ((changed[..., 0] - changed[..., 2]) > 15).nonzero()
    cell = np.ptp(blue_y) / 4, np.ptp(blue_x) / 4
    assert int((red_y.mean() - blue_y.min()) / cell[0]) == 1
    assert int((red_x.mean() - blue_x.min()) / cell[1]) == 3


def test_rows_are_normalised_so_that_rare_classes_look_like_common_ones() -> None:
    few, many = np.eye(3, dtype=int) * 10, np.eye(3, dtype=int) * 10
    many[2, 2] = 5000
    assert np.array_equal(drawn(few)[80:], drawn(many)[80:])
    assert not np.array_equal(drawn(few)[:80], drawn(many)[:80]), "the title tells the count"


@pytest.mark.parametrize("classes", [2, 10, 24, 40, 300])
def test_any_number_of_classes_and_empty_rows_give_a_picture_of_bounded_size(classes: int) -> None:
    matrix = np.eye(classes, dtype=int) * 7
    matrix[1] = 0
    picture = drawn(matrix)
    assert 100 < picture.shape[0] < 900 and 400 < picture.shape[1] < 900
    coloured = np.ptp(picture, axis=2) > 40
    assert coloured.any() and not (np.ptp(drawn(0 * matrix), axis=2) > 40).any()


def test_short_names_stand_at_rows_and_columns_and_others_give_way_to_numbers() -> None:
    matrix = np.eye(3, dtype=int)
    assert not np.array_equal(drawn(matrix, ["a", "b", "c"]), drawn(matrix))
    for other in (["a", "b", "an elephant"], ["a", "b", "猫"]):
        assert np.array_equal(drawn(matrix, other), drawn(matrix))
