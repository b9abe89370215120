"""The curves of a training as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageColor

from cgan.errors import DataError
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


def test_the_axes_hold_every_value() -> None:
    for values in ([-3.0, 7.0], [1e-5, 3e-5], [1e9, 1.1e9], [5.0, 5.0], [0.0, 0.0], [-1e30, 1e30]):
        ticks = curves._ticks(values)
        assert ticks[0] <= min(values) and ticks[-1] >= max(values)
        assert 3 <= len(ticks) <= 8
        assert len({f"{tick:.4g}" for tick in ticks}) == len(ticks), "labels tell them apart"


def test_a_value_that_is_not_finite_is_a_gap_and_no_step_at_all_an_empty_picture() -> None:
    picture = curves_image("Losses", [1, 2, 3, 4, 5], {"a": [1, 2, NAN, 4, float("inf")]})
    x, _ = points(picture, 0)
    width = curves.WIDTH - curves.LEFT - curves.RIGHT
    third, fourth = (curves.LEFT + width * part for part in (0.5, 0.75))
    assert not np.any(np.abs(x - third) < width * 0.2)
    assert np.any(np.abs(x - fourth) < 4)
    picture = curves_image("Losses", [], {"a": [], "b": []})
    assert not len(points(picture, 0)[0])


def test_losses_and_logits_are_read_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "losses.csv"
    table.write_text(f"{HEADER}50,1.5,2.5,3,-1\n100,1.25,nan,2,-0.5\n")
    losses, logits = training_curves(table)
    assert np.array_equal(
        losses,
        curves_image("Losses", [50, 100], {"discriminator": [1.5, 1.25], "generator": [2.5, NAN]}),
    )
    title = "What the discriminator says (mean logits)"
    assert np.array_equal(
        logits,
        curves_image(title, [50, 100], {"real images": [3, 2], "fake images": [-1, -0.5]}),
    )


@pytest.mark.parametrize(
    "text", ["", HEADER, "step\n1\n", f"{HEADER}1,2,3,4\n", f"{HEADER}1,a,2,3,4\n"]
)
def test_another_table_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    table = tmp_path / "losses.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=r"losses.csv: not the losses .* `dvc checkout --force`"):
        training_curves(table)
