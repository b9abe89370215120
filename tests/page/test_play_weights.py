"""The weights that travel in the page: what is folded into them, and in which precision."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load
from torch import nn

from cgan.model.networks import Architecture, build_generator
from cgan.page.weights import packed
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
