"""The weights that travel in the page: what is folded into them, and in which precision."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load
from torch import nn

from cgan.model.networks import GENERATORS, Architecture, build_generator
from cgan.page.weights import directions, packed
from cgan.serving.generator import Generator


def trained(kind: str, spread: float = 1) -> Generator:
    """`spread`: how differently large a layer's features are."""
    torch.manual_seed(1)
    network = build_generator(Architecture(kind, 10, 1, 28, 28, features=8, latent_dim=6))
    network.train()(torch.randn(64, 6), torch.arange(64) % 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data *= spread ** torch.randn(module.num_features)
    return Generator(network.eval().requires_grad_(False), {})


@pytest.mark.parametrize(("spread", "dtype"), [(1, torch.float16), (1e5, torch.float32)])
def test_half_precision_travels_only_where_the_pictures_bear_it(
    spread: float, dtype: torch.dtype
) -> None:
    """Factors far apart leave what float16 can hold; then the page is larger, and right."""
    tensors = load(packed(trained("deconv", spread)))
    assert {t.dtype for name, t in tensors.items() if name.endswith("weight")} == {dtype}
    assert {t.dtype for name, t in tensors.items() if name.endswith("bias")} == {torch.float32}


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_two_directions_change_the_first_layer_most(kind: str) -> None:
    generator = trained(kind)
    found = torch.tensor(directions(generator), dtype=torch.float64)
    torch.testing.assert_close(found @ found.T, torch.eye(2, dtype=torch.float64))
    weight = load(packed(generator))["0.weight"][0, 0, :6].double()
    effect = (found @ weight).norm(dim=1)
    assert effect[0] > effect[1] > (torch.eye(6, dtype=torch.float64) @ weight).norm(dim=1).median()
