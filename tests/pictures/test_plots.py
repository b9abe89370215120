"""Curves, the confusion matrix and the networks as pictures."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
)
from cgan.pictures.network_diagram import DETAIL_WIDTH, network_diagram, trace
from cgan.pictures.plots import confusion_matrix_image, curves_image, training_curves
from cgan.training.records import read_records

NAN = float("nan")
HEADER = "step,loss/discriminator,loss/generator,logits/real_mean,logits/fake_mean\n"


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
    top = 60  # the title tells the count
    assert np.array_equal(drawn(few)[top:], drawn(many)[top:])
    assert not np.array_equal(drawn(few)[:top], drawn(many)[:top])


@pytest.mark.parametrize("classes", [2, 10, 24, 40, 300])
def test_any_number_of_classes_and_empty_rows_give_a_picture_of_bounded_size(classes: int) -> None:
    matrix = np.eye(classes, dtype=int) * 7
    matrix[1] = 0
    names = ["an elephant of a long name", "猫", *map(str, range(2, classes))]
    picture = drawn(matrix, names)
    assert picture.shape == (700, 700, 3)
    coloured = np.ptp(picture, axis=2) > 40
    assert coloured.any() and not (np.ptp(drawn(0 * matrix), axis=2) > 40).any()


@pytest.mark.parametrize(
    "values", [[-3.0, 7.0], [1e-5, 3e-5], [5.0, 5.0], [-1e30, 1e30], [NAN, 1.0], []]
)
def test_any_values_give_a_picture(values: list[float]) -> None:
    picture = curves_image("Losses", range(len(values)), {"a": values, "b": values})
    assert picture.shape == (380, 600, 3)
    again = curves_image("Losses", range(len(values)), {"a": values, "b": values})
    assert np.array_equal(picture, again), "equal bytes"


def test_losses_and_logits_are_read_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "losses.csv"
    table.write_text(f"{HEADER}50,1.5,2.5,3,-1\n100,1.25,nan,2,-0.5\n")
    losses = {"discriminator": [1.5, 1.25], "generator": [2.5, NAN]}
    assert np.array_equal(
        training_curves(read_records(table))[0], curves_image("Losses", [50, 100], losses)
    )


DEMO = Architecture("demo", 10, 1, 28, 28, 96, 96)
NETWORKS = [
    build_generator(Architecture("deconv", 10, 1, 28, 28, 8, 16)),
    build_generator(Architecture("deconv", 47, 3, 30, 50, 4, 5)),
    build_generator(DEMO),
    build_discriminator(Architecture("projection", 47, 3, 30, 50, 4)),
    build_discriminator(DEMO),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}-{n.architecture}")
def test_a_diagram_has_every_layer_once_and_all_parameters(
    network: GeneratorNetwork | DiscriminatorNetwork,
) -> None:
    _, *layers, last = trace(network)
    leaves = [m for m in network.modules() if not list(m.children())]
    names = [type(m).__name__.replace("ConvTransposeToImages", "ConvTranspose2d") for m in leaves]
    assert sorted(layer.name for layer in layers) == sorted(names)
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    a = network.architecture
    image = (a.channels, a.height, a.width)
    assert last.outputs == (image if isinstance(network, GeneratorNetwork) else (1,))
    assert max(len(textwrap.wrap(layer.detail, DETAIL_WIDTH)) for layer in layers) <= 2, (
        "in its row"
    )
    picture = network_diagram(network)
    assert picture.shape[1:] == (900, 3)
    assert np.array_equal(picture, network_diagram(network))
    assert not any(module._forward_hooks for module in network.modules())
