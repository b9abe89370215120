"""Generators and discriminators: shapes, the demo's facts, what the label does."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from cgan.models import networks
from cgan.models.networks import Architecture, build_discriminator, build_generator

DEMO = Architecture("demo", 10, 1, 28, 28, features=96, latent_dim=96)


def generator_of(kind: str = "deconv", **changes: Any) -> Architecture:
    facts = {"classes": 10, "channels": 1, "height": 28, "width": 28, "features": 4}
    return Architecture(kind, **{**facts, "latent_dim": 6, **changes})


@pytest.mark.parametrize("kind", ["deconv", "upsample"])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 28, 28), (3, 30, 20), (1, 8, 8), (1, 9, 65), (1, 128, 8)]
)
def test_generator_and_discriminator_fit_every_image_size(
    kind: str, channels: int, height: int, width: int
) -> None:
    size = {"channels": channels, "height": height, "width": width}
    generator = build_generator(generator_of(kind, **size))
    labels = torch.tensor([0, 9, 3])
    images = generator(torch.randn(3, 6), labels)
    assert images.shape == (3, channels, height, width) and images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1
    discriminator = build_discriminator(generator_of("projection", latent_dim=0, **size))
    logits, class_logits = discriminator(images, labels)
    assert logits.shape == (3,) and class_logits is not None and class_logits.shape == (3, 10)
    (logits.sum() + class_logits.sum()).backward()
    for network in (generator, discriminator):
        assert all(w.grad is not None and w.grad.any() for w in network.parameters())


@pytest.mark.parametrize(
    ("side", "limit", "generated", "seen"),
    [
        (64, 4096, [16, 16, 8, 4], [4, 8, 16]),
        (64, 8, [8, 8, 8, 4], [4, 8, 8]),
        (64, 2, [4] * 4, [4] * 3),
        (8, 4096, [8, 8, 4], [4, 8]),
    ],
)
def test_no_layer_but_the_largest_map_s_has_more_than_the_limit(
    side: int, limit: int, generated: list[int], seen: list[int]
) -> None:
    generator = build_generator(generator_of(height=side, width=side, max_features=limit))
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [conv.in_channels for conv in convs] == generated
    facts = generator_of("projection", height=side, width=side, max_features=limit)
    convs = [m for m in build_discriminator(facts).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs if conv.stride == (2, 2)] == seen


DEMO_LAYERS = {
    build_generator: """
        ConvTranspose2d(106, 384, kernel_size=(4, 4), stride=(1, 1), bias=False) BatchNorm2d ReLU
        ConvTranspose2d(384, 192, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
        BatchNorm2d ReLU
        ConvTranspose2d(192, 96, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)
        BatchNorm2d ReLU
        ConvTranspose2d(96, 1, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False) Tanh""",
    build_discriminator: """
        Conv2d(11, 24, kernel_size=(3, 3), stride=(1, 1), bias=False) BatchNorm2d ELU MaxPool2d
        Conv2d(24, 32, kernel_size=(3, 3), stride=(2, 2), bias=False) BatchNorm2d ELU
        Conv2d(32, 64, kernel_size=(3, 3), stride=(1, 1), bias=False) BatchNorm2d ELU
        Conv2d(64, 128, kernel_size=(4, 4), stride=(1, 1), bias=False) Flatten
        Linear(in_features=128, out_features=32, bias=False) ELU
        Linear(in_features=32, out_features=1, bias=True)""",
}


@pytest.mark.parametrize("build", DEMO_LAYERS)
def test_the_demo_s_networks_have_the_layers_of_the_demo(build: Any) -> None:
    layers = [
        str(layer) if isinstance(layer, nn.Linear) or "Conv" in str(layer) else type(layer).__name__
        for layer in build(DEMO).layers
    ]
    assert " ".join(layers) == " ".join(DEMO_LAYERS[build].split())


def test_the_demo_s_weights_and_norms_are_those_of_the_demo() -> None:
    modules = [*build_generator(DEMO).modules(), *build_discriminator(DEMO).modules()]
    assert {module.alpha for module in modules if isinstance(module, nn.ELU)} == {0.25}
    torch.manual_seed(0)
    weight = build_generator(DEMO).get_parameter("layers.3.weight").detach()  # 384 → 192, 3×3
    fans = 9 * (384 + 192) / 2
    assert weight.std().item() == pytest.approx(math.sqrt(3 / fans), rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    tail = (weight.abs() > 2 * weight.std()).float().mean().item()
    assert tail == pytest.approx(0.0455, abs=0.002), "a Gaussian, not a uniform"
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert all(not norm.weight.requires_grad and norm.bias.requires_grad for norm in norms)
    assert all(norm.weight.eq(1).all() for norm in norms)


def test_the_demo_discriminator_sees_the_label_as_channels() -> None:
    discriminator, labels = build_discriminator(DEMO), torch.tensor([3, 7])
    given: list[torch.Tensor] = []
    discriminator.layers[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    images = build_generator(DEMO)(torch.randn(2, 96), labels)
    logits, class_logits = discriminator(images, labels)
    assert images.shape == (2, 1, 28, 28) and logits.shape == (2,) and class_logits is None
    assert torch.equal(given[0][:, :1], images)
    planes = given[0][:, 1:]
    assert planes[0, 3].eq(1).all() and planes[1, 7].eq(1).all() and planes.sum() == 2 * 28 * 28


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_projection_and_class_logit_of_the_label_join_the_score(weight: float) -> None:
    discriminator = build_discriminator(generator_of("projection", class_logit_weight=weight))
    images = torch.randn(10, 1, 28, 28)
    maps = discriminator.layers(images).permute(0, 2, 3, 1).flatten(1)
    out = discriminator.linear(maps)
    logits, class_logits = discriminator(images, torch.arange(10))
    joined = out[:, 1:11].diagonal() + weight * out[:, 11:].diagonal()
    assert torch.allclose(logits, out[:, 0] + joined, atol=1e-5)
    assert torch.allclose(class_logits, out[:, 11:], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_doubling_is_a_transposed_convolution(channels: int) -> None:
    torch.manual_seed(0)
    layer = networks.ConvTransposeToImages(6, channels, 4, stride=2, padding=1)
    maps = torch.randn(3, 6, 5, 7).to(memory_format=torch.channels_last)
    weights, bias = layer.parameters()
    found = layer(maps.requires_grad_())
    expected = F.conv_transpose2d(maps, weights, bias, stride=2, padding=1)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (maps, weights, bias), upstream),
        torch.autograd.grad(expected, (maps, weights, bias), upstream),
    )


@pytest.mark.parametrize("side", [8, 9, 28, 33])
def test_the_gradient_at_first_maps_gives_that_at_the_images(side: int) -> None:
    discriminator = build_discriminator(generator_of("projection", height=side, width=side + 2))
    assert isinstance(discriminator, networks.ProjectionDiscriminator)
    images = torch.randn(3, 1, side, side + 2, requires_grad=True)
    maps = discriminator.first_maps(images)
    upstream = torch.randn_like(maps)
    found = discriminator.gradient_at_images(upstream)
    (expected,) = torch.autograd.grad(maps, images, upstream)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
