"""Network diagrams say what the modules do."""

import numpy as np
import pytest

from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
)
from cgan.pictures.network_diagram import network_diagram, trace

DEMO = Architecture("demo", 10, 1, 28, 28, 96, 96)
NETWORKS = [
    build_generator(Architecture("deconv", 10, 1, 28, 28, 8, 16)),
    build_generator(Architecture("embed", 47, 3, 30, 50, 4, 5)),
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
    names = [type(m).__name__.replace("PixelDoubling", "ConvTranspose2d") for m in leaves]
    assert sorted(layer.name for layer in layers) == sorted(names)
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    a = network.architecture
    image = (a.channels, a.height, a.width)
    assert last.outputs == (image if isinstance(network, GeneratorNetwork) else (1,))
    picture = network_diagram(network)
    assert picture.shape[1:] == (900, 3)
    assert np.array_equal(picture, network_diagram(network))
    assert not any(module._forward_hooks for module in network.modules())
