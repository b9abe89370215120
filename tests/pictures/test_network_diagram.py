"""Network diagrams say what the modules do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgan.model.networks import (
    Architecture,
    Discriminator,
    Generator,
    build_discriminator,
    build_generator,
)
from cgan.pictures.network_diagram import WIDTH, network_diagram, trace

DEMO = Architecture("demo", 10, 1, 28, 28, 96, 96)
GENERATORS = [
    Architecture("deconv", 10, 1, 28, 28, 8, 16),
    Architecture("upsample", 3, 3, 32, 64, 4, 5),
    Architecture("embed", 47, 3, 30, 50, 4, 5),
    DEMO,
]
DISCRIMINATORS = [
    Architecture("projection", 10, 1, 28, 28, 8),
    Architecture("projection", 47, 3, 30, 50, 4),
    DEMO,
]
NETWORKS = [build_generator(a) for a in GENERATORS] + [
    build_discriminator(a) for a in DISCRIMINATORS
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}-{n.architecture}")
def test_the_trace_has_every_layer_once_and_all_the_parameters(
    network: Generator | Discriminator,
) -> None:
    layers, _ = trace(network)
    leaves = [m for m in network.modules() if not list(m.children())]
    names = [type(m).__name__.replace("PixelDoubling", "ConvTranspose2d") for m in leaves]
    assert sorted(layer.name for layer in layers) == sorted(names)
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}-{n.architecture}")
def test_a_diagram_is_as_wide_as_a_readme_and_always_the_same(
    network: Generator | Discriminator,
) -> None:
    picture = network_diagram(network)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (WIDTH, 3)
    assert np.array_equal(picture, network_diagram(network))
    ink = (picture < 200).any(axis=(1, 2)).nonzero()[0]
    assert 10 < ink[0] < 40, "starts with its title"
    assert len(picture) - 40 < ink[-1] < len(picture) - 10, "ends with its last box"


def test_a_trace_has_the_known_shapes_and_shows_a_crop() -> None:
    layers, output = trace(build_generator(DEMO))
    shapes = [layer.outputs for layer in layers if layer.kind == "convolution"]
    assert shapes == [(384, 4, 4), (192, 7, 7), (96, 14, 14), (1, 28, 28)]
    assert layers[0].inputs == (106, 1, 1)
    assert output == (1, 28, 28)
    layers, output = trace(build_generator(GENERATORS[2]))
    assert layers[-1].outputs == (3, 32, 56)
    assert output == (3, 30, 50)


def test_tracing_leaves_mode_statistics_and_hooks_of_the_network_alone() -> None:
    network = build_generator(GENERATORS[0]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trace(network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
