"""Generators and discriminators.

The default pair is a small conditional DCGAN (Radford et al., arXiv:1511.06434): the generator starts
from a linear layer; the discriminator has no normalisation, and its logit includes the label's projection
(Miyato & Koyama, arXiv:1802.05637) and the class logit of an auxiliary classifier (Odena et al.,
arXiv:1610.09585; joined to it as by Chen et al., *A Unified View of cGANs with and without Classifiers*,
NeurIPS 2021).
`DemoGenerator` and `DemoDiscriminator` are the networks of the R/MXNet demo that this project replaces
(jeremiedb/gan_example).

Images are [N, C, H, W] in [-1, 1], latents [N, latent_dim] from a standard normal, labels int64 [N]. Maps are
feature maps, [N, features, height, width].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cgan.base.errors import ParamsError
from cgan.base.progress import Progress, silent
from cgan.base.settings import setting
from cgan.models.generative import GenerativeModel, ModelSizes, class_of
from cgan.models.hardware import exact_floats
from cgan.models.parallel import available_threads, parts_on_threads
from cgan.models.sampling import CHUNK, draw_latents, interpolate_latents, to_uint8

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Architecture(ModelSizes):
    """All that is needed to build a network again. `features`: channels of the largest maps."""

    features: int
    latent_dim: int = 0
    max_features: int = 4096
    class_logit_weight: float = 0.0


def _halvings(height: int, width: int) -> int:
    """Times that the sides are halved from the image to the smallest map: twice or more, until the longer one
    has at most 8 pixels (28 → 7: twice), but not below one pixel on the shorter one."""
    wanted = max(2, math.ceil(math.log2(max(height, width) / 8)))
    possible = int(math.log2(min(height, width)))
    return min(wanted, possible)


def _map_features(a: Architecture, halvings: int) -> int:
    """The channels of a map, by how often its sides are halved from the largest maps: each halving doubles
    them, up to `max_features`, or `features` if that is larger."""
    features: int = a.features * 2**halvings
    return min(features, max(a.features, a.max_features))


class _Network(nn.Module):
    layers: nn.Sequential
    linear: nn.Linear

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture


class GeneratorNetwork(_Network, GenerativeModel):
    """(latents, labels) → images in [-1, 1]. Labels become conditions first, which can be mixed."""

    architecture: Architecture
    runs_in_browser = True
    legibility_param = "train.class_logit_weight"

    @classmethod
    def from_file(
        cls, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> GeneratorNetwork:
        return with_weights(lambda: build_generator(Architecture(**architecture)), tensors)

    @property
    def description(self) -> str:
        a = self.architecture
        return f"network {a.kind}, {f'latents of {a.latent_dim}' if a.latent_dim else 'no latents'}"

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.from_condition(latents, self.condition(labels))

    def condition(self, labels: Tensor) -> Tensor:
        """The layers' input for these labels, float [N, any]; rows may be averaged to mix classes."""
        return F.one_hot(labels, self.architecture.classes).float()

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        raise NotImplementedError("build_generator() makes the network")

    def draw(self, labels: Tensor, seed: int, progress: Progress = silent) -> Tensor:
        latents = draw_latents(seed, len(labels), self.architecture.latent_dim)
        return self.render(latents, self.condition(labels.to(self.device)))

    def interpolation(self, labels: Tensor, steps: int, seed: int) -> Tensor:
        start, end = draw_latents(seed, 2, self.architecture.latent_dim)
        path = interpolate_latents(start, end, steps).repeat(len(labels), 1)
        return self.render(path, self.condition(labels.repeat_interleave(steps).to(self.device)))

    def render(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Images uint8 [N, C, H, W] on the CPU, of latents and conditions, in eval mode. There each
        thread works on a chunk of its own: the same bits, faster when another process takes a core."""
        assert not self.training, "drawing needs eval mode: padding would enter batch statistics"
        parts = available_threads() if condition.device.type == "cpu" else 1
        chunks = zip(latents.split(CHUNK), condition.split(CHUNK), strict=True)
        with exact_floats(), parts_on_threads(parts) as parallel:
            return torch.cat(list(parallel(self._render_chunk, chunks)))

    @torch.inference_mode()
    def _render_chunk(self, chunk: tuple[Tensor, Tensor]) -> Tensor:
        latents, condition = chunk
        count, missing = len(latents), CHUNK - len(latents)
        images = self.from_condition(
            F.pad(latents.to(condition.device), (0, 0, 0, missing)),
            F.pad(condition, (0, 0, 0, missing)),
        )
        return to_uint8(images[:count]).cpu()


class DiscriminatorNetwork(_Network):
    """(images, labels) → (logits [N], class logits [N, classes] or None)."""

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError("build_discriminator() makes the network")


def _norm_and_relu(features: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]


def conv_transpose_to_images(maps: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    """Transposed convolution of maps [N, F, h, w] by `weight` [F, C, 4, 4], stride 2, padding 1 → float32
    [N, C, height, width]. It also takes a gradient back through a convolution with this weight.

    oneDNN's kernels are made for many output channels, and images have few. On the CPU each pixel is
    multiplied by the whole kernel, and results that overlap are added up: a training is 8 % shorter.
    """
    count, features, rows, columns = maps.shape
    if maps.device.type != "cpu":
        output_padding = (height - 2 * rows, width - 2 * columns)
        return F.conv_transpose2d(maps, weight, None, 2, 1, output_padding).float()
    pixels = maps.permute(0, 2, 3, 1).reshape(count, rows * columns, features)
    patches = (pixels @ weight.flatten(1)).transpose(1, 2).float()
    return F.fold(patches, (height, width), 4, stride=2, padding=1)


class ConvTransposeToImages(nn.ConvTranspose2d):
    """The generator's last layer, 4×4 with stride 2: as torch's, but faster on the CPU, and float32."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        return conv_transpose_to_images(x, self.weight, height, width) + self.bias[:, None, None]


class ConvGenerator(GeneratorNetwork):
    """Linear → smallest map → 3×3 conv → layers that double the sides → image: `deconv` by transposed
    convolutions; `upsample` repeats pixels and convolves, which shows no checkerboard (Odena et al., 2016).

    The linear layer does the work of DCGAN's first transposed convolution in a tenth of its time; its output
    is read as NHWC, so that the maps are channels-last without a copy.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        a = architecture
        doublings = _halvings(a.height, a.width)
        self.map_height = math.ceil(a.height / 2**doublings)
        self.map_width = math.ceil(a.width / 2**doublings)
        features = [_map_features(a, halvings) for halvings in reversed(range(doublings))]
        self.linear = nn.Linear(
            a.latent_dim + a.classes, self.map_height * self.map_width * features[0], bias=False
        )
        layers = _norm_and_relu(features[0])
        layers += [nn.Conv2d(features[0], features[0], 3, padding=1, bias=False)]
        layers += _norm_and_relu(features[0])
        for in_features, out_features in pairwise(features):
            layers += self._upsampling(in_features, out_features) + _norm_and_relu(out_features)
        layers += [*self._upsampling(features[-1], a.channels, is_last=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def _upsampling(
        self, in_features: int, out_features: int, is_last: bool = False
    ) -> list[nn.Module]:
        """Layers that double the sides."""
        if self.architecture.kind == "upsample":
            conv = nn.Conv2d(in_features, out_features, 3, padding=1, bias=is_last)
            return [nn.Upsample(scale_factor=2, mode="nearest"), conv]
        layer = ConvTransposeToImages if is_last else nn.ConvTranspose2d
        return [layer(in_features, out_features, 4, stride=2, padding=1, bias=is_last)]

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        a = self.architecture
        flat = self.linear(torch.cat([latents, condition.to(latents.dtype)], dim=1))
        maps = flat.view(len(latents), self.map_height, self.map_width, -1).permute(0, 3, 1, 2)
        images: Tensor = self.layers(maps)
        # Larger than the image where its sides are no multiple of 2**doublings.
        return images[:, :, : a.height, : a.width]


class ProjectionDiscriminator(DiscriminatorNetwork):
    """Strided 4×4 convs → 3×3 conv → one linear layer with 1 + 2·classes outputs: the score without the
    label, the projection on each class, and the logit of each class. An image's logit is this score, plus the
    projection on its label's class, plus `class_logit_weight` times the logit of that class, from which the
    generator learns to draw classes that can be told apart.

    The projection of Miyato and Koyama is the inner product of an image's features with an embedding of its
    class: a linear layer's output for the class, the row of weights being the embedding, and a bias.
    There is no batch norm, so fakes and reals can share a batch, both networks can learn from one pass, and
    R1 is exact for each image.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        a = architecture
        layers: list[nn.Module] = []
        features, height, width = a.channels, a.height, a.width
        for halvings in range(_halvings(a.height, a.width)):
            in_features, features = features, _map_features(a, halvings)
            layers += [nn.Conv2d(in_features, features, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            height, width = height // 2, width // 2
        layers += [nn.Conv2d(features, features, 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(features * height * width, 2 * a.classes + 1)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.from_first_maps(self.first_maps(images), labels)

    def first_maps(self, images: Tensor) -> Tensor:
        """The output of the first convolution, [N, features, ⌊H/2⌋, ⌊W/2⌋]."""
        maps: Tensor = self.layers[0](images)
        return maps

    def gradient_at_images(self, maps_gradient: Tensor) -> Tensor:
        """A gradient at the `first_maps` → at the images [N, C, H, W], float32; without a graph."""
        a, weight = self.architecture, self.layers[0].get_parameter("weight")
        return conv_transpose_to_images(maps_gradient, weight.detach(), a.height, a.width)

    def from_first_maps(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [N] and class logits [N, classes]."""
        classes = self.architecture.classes
        for layer in islice(self.layers, 1, None):
            maps = layer(maps)
        # Channels-last maps flatten without a copy when read in their own order, N H W C.
        outputs = self.linear(maps.permute(0, 2, 3, 1).flatten(1)).float()
        score, projections, class_logits = outputs.split([1, classes, classes], dim=1)
        label_terms = projections + self.architecture.class_logit_weight * class_logits
        label_term = label_terms.gather(1, labels[:, None]).squeeze(1)
        return score.squeeze(1) + label_term, class_logits


def _demo_norm(features: int, activation: nn.Module) -> tuple[nn.Module, nn.Module]:
    """MXNet's BatchNorm with `fix_gamma` (the scale stays 1, the shift is learnt), and the activation."""
    norm = nn.BatchNorm2d(features, eps=1e-5)
    norm.weight.requires_grad_(False)
    return norm, activation


def _demo_init(module: nn.Module) -> None:
    """MXNet's Xavier(rnd_type="gaussian", factor_type="avg", magnitude=3): σ = √(3 / mean fan)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_normal_(module.weight, gain=math.sqrt(3))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DemoGenerator(GeneratorNetwork):
    """The demo's generator: four transposed convolutions, from one-hot label and latent as a map of 1×1."""

    legibility_param = ""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        a = architecture
        f = a.features
        if (a.height, a.width) != (28, 28):
            raise ParamsError(
                f"{setting('train.generator', 'demo')} needs 28×28 images, found {a.height}×{a.width}. "
                f"Set {setting('train.generator', 'deconv')}."
            )
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(a.classes + a.latent_dim, 4 * f, 4, bias=False),
            *_demo_norm(4 * f, nn.ReLU(inplace=True)),
            nn.ConvTranspose2d(4 * f, 2 * f, 3, stride=2, padding=1, bias=False),
            *_demo_norm(2 * f, nn.ReLU(inplace=True)),
            nn.ConvTranspose2d(2 * f, f, 4, stride=2, padding=1, bias=False),
            *_demo_norm(f, nn.ReLU(inplace=True)),
            nn.ConvTranspose2d(f, a.channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        )
        self.apply(_demo_init)

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        joined = torch.cat([condition.to(latents.dtype), latents], dim=1)
        images: Tensor = self.layers(joined[:, :, None, None])
        return images


class DemoDiscriminator(DiscriminatorNetwork):
    """The demo's discriminator: the label joins the image as one constant channel a class."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        a = architecture
        self.layers = nn.Sequential(
            nn.Conv2d(a.channels + a.classes, 24, 3, bias=False),  # 28 → 26
            *_demo_norm(24, nn.ELU(alpha=0.25)),
            nn.MaxPool2d(2),  # → 13
            nn.Conv2d(24, 32, 3, stride=2, bias=False),  # → 6
            *_demo_norm(32, nn.ELU(alpha=0.25)),
            nn.Conv2d(32, 64, 3, bias=False),  # → 4
            *_demo_norm(64, nn.ELU(alpha=0.25)),
            nn.Conv2d(64, 128, 4, bias=False),  # → 1
            nn.Flatten(),
            nn.Linear(128, 32, bias=False),
            nn.ELU(alpha=0.25),
            nn.Linear(32, 1),
        )
        self.apply(_demo_init)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        planes = F.one_hot(labels, self.architecture.classes).to(images.dtype)[:, :, None, None]
        joined = torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
        return self.layers(joined).squeeze(1).float(), None


DISCRIMINATORS: dict[str, type[DiscriminatorNetwork]] = {
    "projection": ProjectionDiscriminator,
    "demo": DemoDiscriminator,
}


def build_generator(architecture: Architecture) -> GeneratorNetwork:
    """A generator with fresh weights from torch's global RNG."""
    kind = cast("type[GeneratorNetwork]", class_of(architecture.kind))
    return channels_last(kind(architecture))


def build_discriminator(architecture: Architecture) -> DiscriminatorNetwork:
    """A discriminator with fresh weights from torch's global RNG."""
    return channels_last(DISCRIMINATORS[architecture.kind](architecture))


def with_weights(build: Callable[[], _Module], tensors: Mapping[str, Tensor]) -> _Module:
    """The network that `build` makes, with these weights, which are not to be trained further."""
    # Without memory for weights, in case the file lies about sizes.
    with torch.device("meta"):
        network = build()
    network.load_state_dict(tensors, assign=True)
    return channels_last(network.float()).requires_grad_(False)


def channels_last(network: _Module) -> _Module:
    """The network itself, its weights in the order in which convolutions are fastest, on CPU and GPU."""
    to: Any = network.to  # whether its annotations know the argument depends on torch's release
    to(memory_format=torch.channels_last)
    return network
