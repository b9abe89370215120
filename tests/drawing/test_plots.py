"""Curves, the confusion matrix and the networks as pictures."""

from pathlib import Path

import numpy as np
import pytest

from cgan.drawing import plots
from cgan.drawing.plots import diagram, layers_in_words
from cgan.models.networks import Architecture, build_discriminator, build_generator
from cgan.training.records import read_records

NAN = float("nan")
HEADER = "step,loss/discriminator,loss/generator,logits/real_mean,logits/fake_mean\n"


def drawn(matrix: np.ndarray) -> np.ndarray:
    names = ["an elephant of a long name", "猫", *map(str, range(2, len(matrix)))]
    return plots.confusion_matrix_image(matrix, names[: len(matrix)]).astype(int)


def test_right_is_blue_and_a_few_errors_are_red_in_their_place() -> None:
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


def test_rows_are_normalised_so_that_classes_compare() -> None:
    few, many = np.eye(3, dtype=int) * 10, np.eye(3, dtype=int) * 10
    many[2, 2] = 5000
    top = 60  # the title tells the count
    assert np.array_equal(drawn(few)[top:], drawn(many)[top:])
    assert not np.array_equal(drawn(few)[:top], drawn(many)[:top])
    assert np.ptp(drawn(np.zeros((300, 300), int)), axis=2).max() <= 40, "no drawing, no colour"


@pytest.mark.parametrize(
    "values", [[-3.0, 7.0], [5.0, 5.0], [-1e30, 1e30], [1.0, 500.0], [NAN, 1.0], []]
)
def test_any_values_give_a_picture_and_an_svg_of_the_same_bytes(values: list[float]) -> None:
    figures = [
        plots.curves_figure("Losses", range(len(values)), {"a": values, "b": values})
        for _ in range(2)
    ]
    first, again = map(plots.rendered, figures)
    assert first.shape == (380, 600, 3) and np.array_equal(first, again)
    assert plots.svg_of(figures[0]) == plots.svg_of(figures[1])
    logarithmic = figures[0].axes[0].get_yscale() == "log"
    assert logarithmic == (values == [1.0, 500.0])


def test_losses_and_logits_are_read_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "losses.csv"
    table.write_text(f"{HEADER}50,1.5,2.5,3,-1\n100,1.25,nan,2,-0.5\n")
    drawn = [
        [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
        for figure in plots.training_curves(read_records(table))
    ]
    assert str(drawn) == "[[[1.5, 1.25], [2.5, nan]], [[3.0, 2.0], [-1.0, -0.5]]]"


def test_a_figure_has_every_layer_once_and_all_parameters() -> None:
    for network in (
        build_generator(Architecture("upsample", 47, 3, 30, 50, 4, 5)),
        build_generator(Architecture("demo", 10, 1, 28, 28, 96, 96)),
        build_discriminator(Architecture("projection", 47, 3, 30, 50, 4)),
    ):
        head, _, *lines = layers_in_words("A network", network)
        names = [type(m).__name__ for m in network.modules() if not list(m.children())]
        names = [name.replace("ConvTransposeToImages", "ConvTranspose2d") for name in names]
        assert sorted(line.split()[0] for line in lines) == sorted(names)
        assert head.endswith(f"; {sum(p.numel() for p in network.parameters()):,} parameters")
        assert np.array_equal(diagram("A", network), diagram("A", network))
