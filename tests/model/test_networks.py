"""Generators and discriminators: shapes, the demo's facts, what the label does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from cgan.errors import ParamsError
from cgan.model.networks import (
    GENERATORS,
    Architecture,
    Discriminator,
    Generator,
    PixelDoubling,
    ProjectionDiscriminator,
    build_discriminator,
    build_generator,
)
from cgan.pictures.network_diagram import trace

DEMO = Architecture("demo", 10, 1, 28, 28, features=96, latent_dim=96)


def generator_of(kind: str = "deconv", **changes: Any) -> Architecture:
    facts = {"classes": 10, "channels": 1, "height": 28, "width": 28, "features": 4}
    return Architecture(kind, **{**facts, "latent_dim": 6, **changes})


@pytest.mark.parametrize("kind", [kind for kind in GENERATORS if kind != "demo"])
@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [(1, 28, 28), (3, 30, 20), (1, 8, 8), (1, 9, 65), (1, 128, 8)],
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
    ("limit", "generated", "seen"),
    [(4096, [16, 16, 8, 4], [4, 8, 16]), (8, [8, 8, 8, 4], [4, 8, 8]), (2, [4] * 4, [4] * 3)],
)
def test_no_layer_has_more_features_than_the_limit_but_those_of_the_largest_map(
    limit: int, generated: list[int], seen: list[int]
) -> None:
    generator = build_generator(generator_of(height=64, width=64, max_features=limit))
    norms = [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [norm.num_features for norm in norms] == generated
    assert [conv.in_channels for conv in convs] == generated
    discriminator = build_discriminator(
        generator_of("projection", height=64, width=64, max_features=limit)
    )
    halvings = [
        m for m in discriminator.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    assert [conv.out_channels for conv in halvings] == seen
    assert generator(torch.randn(2, 6), torch.tensor([1, 2])).shape == (2, 1, 64, 64)


@pytest.mark.parametrize(
    ("height", "width", "smallest"),
    [
        *((28, 28, 49), (32, 32, 64), (40, 40, 25), (8, 8, 4), (256, 256, 64)),
        *((16, 128, 8), (128, 16, 8)),  # the long side decides
    ],
)
def test_generator_starts_from_a_map_of_at_most_8_pixels(
    height: int, width: int, smallest: int
) -> None:
    generator = build_generator(generator_of(height=height, width=width))
    assert generator.linear.out_features == smallest * generator.layers[0].num_features


def test_the_demo_s_networks_have_the_layers_of_the_demo() -> None:
    def layers_of(network: Generator | Discriminator) -> list[tuple[str, tuple[int, ...]]]:
        """With features before and after, kernel and stride of each convolution."""
        return [
            (f"{layer.name} {layer.detail if 'Conv' in layer.name else ''}".strip(), layer.outputs)
            for layer in trace(network)[1:-1]
        ]

    def convolution(before: int, after: int, kernel: int, stride: int, padding: str = "") -> str:
        sizes = f"kernel_size=({kernel}, {kernel}), stride=({stride}, {stride})"
        return f"{before}, {after}, {sizes}{padding}, bias=False"

    padded, image = ", padding=(1, 1)", (1, 28, 28)
    generated: list[tuple[str, tuple[int, ...]]] = []
    for detail, shape in (
        (convolution(106, 384, 4, 1), (384, 4, 4)),
        (convolution(384, 192, 3, 2, padded), (192, 7, 7)),
        (convolution(192, 96, 4, 2, padded), (96, 14, 14)),
    ):
        names = (f"ConvTranspose2d {detail}", "BatchNorm2d", "ReLU")
        generated += [(name, shape) for name in names]
    last = f"ConvTranspose2d {convolution(96, 1, 4, 2, padded)}"
    assert layers_of(build_generator(DEMO)) == [*generated, (last, image), ("Tanh", image)]
    seen = [
        *((n, (24, 26, 26)) for n in (f"Conv2d {convolution(11, 24, 3, 1)}", "BatchNorm2d", "ELU")),
        ("MaxPool2d", (24, 13, 13)),
        *((n, (32, 6, 6)) for n in (f"Conv2d {convolution(24, 32, 3, 2)}", "BatchNorm2d", "ELU")),
        *((n, (64, 4, 4)) for n in (f"Conv2d {convolution(32, 64, 3, 1)}", "BatchNorm2d", "ELU")),
        (f"Conv2d {convolution(64, 128, 4, 1)}", (128, 1, 1)),
        *(("Flatten", (128,)), ("Linear", (32,)), ("ELU", (32,)), ("Linear", (1,))),
    ]
    assert layers_of(build_discriminator(DEMO)) == seen
    logits, class_logits = build_discriminator(DEMO)(torch.zeros(2, *image), torch.tensor([3, 7]))
    assert logits.shape == (2,) and class_logits is None


def test_the_demo_s_constants_weights_and_norms_are_those_of_the_demo() -> None:
    modules = [*build_generator(DEMO).modules(), *build_discriminator(DEMO).modules()]
    assert {m.alpha for m in modules if isinstance(m, nn.ELU)} == {0.25}
    assert {m.eps for m in modules if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    torch.manual_seed(0)
    weight = build_generator(DEMO).layers[3].weight.detach()  # 384 → 192, 3×3
    fans = 9 * (384 + 192) / 2
    assert weight.std().item() == pytest.approx(math.sqrt(3 / fans), rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    tail = (weight.abs() > 2 * weight.std()).float().mean().item()
    assert tail == pytest.approx(0.0455, abs=0.002), "a Gaussian, not a uniform"
    for network in (build_generator(DEMO), build_discriminator(DEMO)):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(not n.weight.requires_grad and n.bias.requires_grad for n in norms)
        assert all(n.weight.eq(1).all() for n in norms)


def test_a_size_that_is_no_multiple_is_the_upper_left_of_a_larger_picture() -> None:
    generator = build_generator(generator_of(height=30, width=21)).eval()
    drawn: list[torch.Tensor] = []
    generator.layers.register_forward_hook(lambda *call: drawn.append(call[2]))
    images = generator(torch.randn(2, 6), torch.tensor([1, 2]))
    assert drawn[0].shape[2:] == (32, 24)
    assert torch.equal(images, drawn[0][:, :, :30, :21])


def test_the_demo_discriminator_sees_the_label_as_one_constant_channel_a_class() -> None:
    discriminator = build_discriminator(DEMO)
    given: list[torch.Tensor] = []
    discriminator.layers[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    images = torch.randn(2, 1, 28, 28)
    discriminator(images, torch.tensor([3, 7]))
    assert torch.equal(given[0][:, :1], images)
    planes = given[0][:, 1:]
    assert planes[0, 3].eq(1).all() and planes[1, 7].eq(1).all() and planes.sum() == 2 * 28 * 28


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_the_demo_networks_refuse_other_sizes(build: Any) -> None:
    with pytest.raises(ParamsError, match=r"for 28×28 images, and the data has 32×28\. Choose"):
        build(generator_of("demo", height=32))


def test_a_logit_depends_on_its_own_image_alone() -> None:
    discriminator = build_discriminator(generator_of("projection"))
    images, labels = torch.randn(4, 1, 28, 28, requires_grad=True), torch.arange(4)
    (gradient,) = torch.autograd.grad(discriminator(images, labels)[0][1], images)
    assert [bool(g.any()) for g in gradient] == [False, True, False, False]


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


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_condition_can_be_a_mix_of_classes(kind: str) -> None:
    generator = build_generator(generator_of(kind)).eval()
    latents = torch.randn(3, 6)
    ends = generator.condition(torch.tensor([1, 8]))
    mixes = torch.stack([ends[0], ends.mean(dim=0), ends[1]])
    images = generator.from_condition(latents, mixes)
    assert torch.allclose(images[::2], generator(latents[::2], torch.tensor([1, 8])), atol=1e-5)
    for label in (1, 8):  # the label changes the picture, and half of another does
        assert not torch.equal(images[1:2], generator(latents[1:2], torch.tensor([label])))


@pytest.mark.parametrize("channels", [1, 3])
def test_last_doubling_is_a_transposed_convolution_in_values_and_gradients(channels: int) -> None:
    torch.manual_seed(0)
    layer = PixelDoubling(6, channels, 4, stride=2, padding=1)
    maps = torch.randn(3, 6, 5, 7).to(memory_format=torch.channels_last)
    weights, bias = layer.weight, layer.bias
    found = layer(maps.requires_grad_())
    expected = F.conv_transpose2d(maps, weights, bias, stride=2, padding=1)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (maps, weights, bias), upstream),
        torch.autograd.grad(expected, (maps, weights, bias), upstream),
    )


@pytest.mark.parametrize("side", [8, 9, 28, 33])
def test_the_gradient_at_the_first_maps_gives_the_gradient_at_the_images(side: int) -> None:
    facts = generator_of("projection", height=side, width=side + 2)
    discriminator = build_discriminator(facts)
    assert isinstance(discriminator, ProjectionDiscriminator)
    images = torch.randn(3, 1, side, side + 2, requires_grad=True)
    maps = discriminator.first_maps(images)
    upstream = torch.randn_like(maps)
    found = discriminator.gradient_at_images(upstream)
    (expected,) = torch.autograd.grad(maps, images, upstream)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
