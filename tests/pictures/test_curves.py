"""The curves of a training as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageColor

from cgan.pictures import curves
from cgan.pictures.curves import curves_image, training_curves

NAN = float("nan")
HEADER = "step,loss/discriminator,loss/generator,logits/real_mean,logits/fake_mean\n"


def points(picture: np.ndarray, curve: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels in a curve's colour, below the legend."""
    colour = np.array(ImageColor.getrgb(curves.COLOURS[curve]))
    near = np.abs(picture.astype(int) - colour).max(axis=2) < 24
    near[: curves.TOP - 8] = False
    y, x = near.nonzero()
    return x, y


def test_a_greater_value_is_drawn_higher_and_a_later_step_further_right() -> None:
    picture = curves_image("Losses", [10, 20, 30], {"a": [0, 1, 2], "b": [2, 2, 2]})
    x, y = points(picture, 0)
    assert x.min() == pytest.approx(curves.LEFT, abs=3)
    assert x.max() == pytest.approx(curves.WIDTH - curves.RIGHT, abs=6)  # b lies over its end
    assert y[x < 80].min() == pytest.approx(curves.HEIGHT - curves.BOTTOM, abs=12)
    assert y[x > 560].min() == pytest.approx(curves.TOP, abs=6)
    assert np.corrcoef(x, y)[0, 1] < -0.99
    assert np.ptp(points(picture, 1)[1]) < 5


@pytest.mark.parametrize(
    "values", [[-3.0, 7.0], [1e-5, 3e-5], [1e9, 1.1e9], [5.0, 5.0], [-1e30, 1e30], [NAN, 1.0], []]
)
def test_any_values_fit_into_the_picture(values: list[float]) -> None:
    picture = curves_image("Losses", range(len(values)), {"a": values, "b": values})
    x, y = points(picture, 1)
    assert len(x) > 0 or sum(np.isfinite(values)) < 2
    assert not len(y) or curves.TOP - 3 <= y.min() <= y.max() <= curves.HEIGHT - curves.BOTTOM + 3


def test_losses_and_logits_are_read_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "losses.csv"
    table.write_text(f"{HEADER}50,1.5,2.5,3,-1\n100,1.25,nan,2,-0.5\n")
    losses = {"discriminator": [1.5, 1.25], "generator": [2.5, NAN]}
    assert np.array_equal(training_curves(table)[0], curves_image("Losses", [50, 100], losses))
