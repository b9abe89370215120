"""A generator as the page runs it (generator.js): transposed convolutions, and all numbers in one row.

A linear layer becomes a transposed convolution of a single pixel; a convolution, one with its kernel flipped;
doubling of pixels before a convolution is folded into its kernel, and batch norm into the layer before it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cgan.models.generative import GenerativeModel
from cgan.models.networks import ConvGenerator, GeneratorNetwork

# Along one side: a kernel of 3 on doubled pixels is one of 4, transposed, with stride 2.
DOUBLED_KERNEL = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])


@dataclass
class Layer:
    """`weight` [rows, columns, in, out] and `bias` [out]; its maps are [H, W, features]."""

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int


@torch.no_grad()
def pack_generator(model: GenerativeModel) -> dict[str, Any]:
    """Shape, stride and padding of each layer, and the float32 numbers of all in base64."""
    layers = plain_layers(cast("GeneratorNetwork", model))
    tensors = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).numpy().tobytes()
    facts = [
        {"shape": list(layer.weight.shape), "stride": layer.stride, "padding": layer.padding}
        for layer in layers
    ]
    return {"layers": facts, "weights": base64.b64encode(numbers).decode()}


@torch.no_grad()
def plain_layers(network: GeneratorNetwork) -> list[Layer]:
    """A generator's layers as transposed convolutions. The last is followed by tanh, the others by ReLU."""
    layers: list[Layer] = []
    doubled = False
    for module in [getattr(network, "linear", None), *network.layers]:
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None and module.running_mean is not None
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            layers[-1].weight = layers[-1].weight * scale
            layers[-1].bias = module.bias - module.running_mean * scale
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layers.append(_layer(network, module, doubled))
            doubled = False
        elif isinstance(module, nn.Upsample):
            doubled = True
        else:
            weightless = nn.ReLU | nn.Tanh | None
            assert isinstance(module, weightless), f"the page cannot compute {module}"
    return layers


def _layer(
    network: GeneratorNetwork, module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, doubled: bool
) -> Layer:
    stride, padding = 1, 0
    if isinstance(module, nn.Linear):
        assert isinstance(network, ConvGenerator)
        rows, columns = network.map_height, network.map_width
        weight = module.weight.view(rows, columns, -1, module.in_features).transpose(2, 3)
    elif isinstance(module, nn.ConvTranspose2d):
        weight = module.weight.permute(2, 3, 0, 1)
        stride, padding = module.stride[0], int(module.padding[0])
        if module is network.layers[0]:  # the demo's has the condition first, the page the latent
            weight = weight.roll(-network.architecture.classes, dims=2)
    else:
        weight = module.weight.permute(2, 3, 1, 0).flip(0, 1)
        padding = module.kernel_size[0] - 1 - int(module.padding[0])
        if doubled:
            stride = 2
            weight = torch.einsum("ya,xb,abio->yxio", DOUBLED_KERNEL, DOUBLED_KERNEL, weight)
    bias = torch.zeros(weight.shape[-1]) if module.bias is None else module.bias
    return Layer(weight.contiguous(), bias, stride, padding)
