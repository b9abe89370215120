"""A generator as the page runs it: plain layers, and their weights as bytes that travel in it.

Batch norm is folded into the layer before it. What remains is a list of layers of four forms, each of
which the page computes in one way (generator.js):

- `linear`: latent and condition → the smallest map;
- `conv`: k×k, stride 1, as large as its input;
- `upsample`: the same of an input of which each pixel stands for 2×2;
- `deconv`: k×k transposed, stride 2, padding 1.

Their tensors are `N.weight` [k, k, in, out] and `N.bias` [out]; maps are [H, W, features]. The condition is
the class's row of `embedding`, or one-hot where there is none.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cgan.model.networks import ConvGenerator, DemoGenerator

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator
    from cgan.model import networks

_Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def packed(generator: Generator) -> bytes:
    """safetensors, in float32."""
    plain = without_norms(generator.network)
    tensors: dict[str, Tensor] = {}
    if (embedding := getattr(plain, "embedding", None)) is not None:
        tensors["embedding"] = embedding.weight.detach()
    for number, (layer, _) in enumerate(_layers(plain)):
        tensors[f"{number}.weight"] = _as_page_reads(plain, layer).contiguous()
        tensors[f"{number}.bias"] = _bias_as_page_reads(plain, layer).contiguous()
    return save(tensors)


def layer_facts(generator: Generator) -> list[dict[str, Any]]:
    """Of each layer, in their order: form, activation, and of the first the size of its map."""
    facts: list[dict[str, Any]] = []
    layers = _layers(generator.network)
    for number, (layer, upsampled) in enumerate(layers):
        if number == 0:
            height, width = _first_map(generator.network)
            fact: dict[str, Any] = {"form": "linear", "height": height, "width": width}
        elif isinstance(layer, nn.ConvTranspose2d):
            fact = {"form": "deconv"}
        else:
            fact = {"form": "upsample" if upsampled else "conv"}
        facts.append({**fact, "activation": "relu" if number + 1 < len(layers) else "tanh"})
    return facts


def without_norms(network: networks.GeneratorNetwork) -> networks.GeneratorNetwork:
    """A copy that draws the same, in which each batch norm is part of the layer before it."""
    plain = copy.deepcopy(network).eval()
    before: Any = getattr(plain, "linear", None)
    for name, module in plain.layers.named_children():
        if isinstance(module, nn.BatchNorm2d):
            _fold(before, module)
            setattr(plain.layers, name, nn.Identity())
        elif isinstance(module, _Layer):
            before = module
    return plain


@torch.no_grad()
def _fold(layer: _Layer, norm: nn.BatchNorm2d) -> None:
    assert norm.running_var is not None and norm.running_mean is not None and layer.bias is None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if isinstance(layer, nn.Linear):  # its rows are pixel by pixel, and in each the features
        pixels = layer.out_features // norm.num_features
        layer.weight *= scale.repeat(pixels)[:, None]
        bias = bias.repeat(pixels)
    elif isinstance(layer, nn.ConvTranspose2d):
        layer.weight *= scale[:, None, None]
    else:
        layer.weight *= scale[:, None, None, None]
    layer.bias = nn.Parameter(bias)


def _layers(network: networks.GeneratorNetwork) -> list[tuple[_Layer, bool]]:
    """The layers with weights, and whether each sees its input enlarged."""
    layers: list[tuple[_Layer, bool]] = []
    upsampled = False
    for module in [getattr(network, "linear", None), *network.layers]:
        if isinstance(module, _Layer):
            layers.append((module, upsampled))
            upsampled = False
        elif isinstance(module, nn.Upsample):
            upsampled = True
        else:
            weightless = nn.BatchNorm2d | nn.ReLU | nn.Tanh | nn.Identity | None
            assert isinstance(module, weightless), f"the page cannot compute {module}"
    return layers


def _first_map(network: networks.GeneratorNetwork) -> tuple[int, int]:
    if isinstance(network, DemoGenerator):
        first = network.layers[0]
        assert isinstance(first, nn.ConvTranspose2d)
        return first.kernel_size[0], first.kernel_size[1]
    assert isinstance(network, ConvGenerator)
    return network.map_height, network.map_width


def _as_page_reads(network: networks.GeneratorNetwork, layer: _Layer) -> Tensor:
    """Weights as [k, k, in, out]; of the first layer as [1, 1, latent and condition, all its map]."""
    weight = layer.weight.detach().float()
    if isinstance(layer, nn.Linear):
        return weight.T[None, None]
    if isinstance(layer, nn.Conv2d):
        return weight.permute(2, 3, 1, 0)
    if layer is not network.layers[0]:
        return weight.permute(2, 3, 0, 1)
    # The demo's first layer: condition first, and a kernel that is the whole map.
    rows = weight.permute(0, 2, 3, 1).flatten(1)
    classes = network.architecture.classes
    return torch.cat([rows[classes:], rows[:classes]])[None, None]


def _bias_as_page_reads(network: networks.GeneratorNetwork, layer: _Layer) -> Tensor:
    """[out]; of the first layer an entry for each number of its map."""
    if layer.bias is None:
        return torch.zeros(layer.out_channels)
    bias = layer.bias.detach().float()
    if isinstance(layer, nn.ConvTranspose2d) and layer is network.layers[0]:
        height, width = _first_map(network)
        return bias.repeat(height * width)
    return bias
