"""A network's picture, drawn from what its modules do when they run: types, shapes, parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.pictures.plots import Picture, picture_of

LEARNT, FIXED, ENDS = ("#2f6db3", "#e3eefa"), ("#2f855a", "#e2f5e4"), ("#b7791f", "#fdf1d3")


@dataclass
class Layer:
    """A module without children, as it ran, or what a network begins and ends with; no batch in `outputs`."""

    name: str
    detail: str
    outputs: tuple[int, ...]
    parameters: int = 0
    colours: tuple[str, str] = ENDS  # of the edge, of the face


@torch.inference_mode()
def trace(network: GeneratorNetwork | DiscriminatorNetwork) -> list[Layer]:
    """What goes in, every layer in the order of its run, and what comes out. The network is on the CPU, and
    set to evaluation."""
    a = network.architecture
    found: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our PixelDoubling is a ConvTranspose2d to the reader.
        kind = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        shape = tuple(outputs.shape[1:])
        colours = LEARNT if parameters else FIXED
        found.append(Layer(kind.__name__, module.extra_repr(), shape, parameters, colours))

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    network.eval()
    labels, image = torch.zeros(1, dtype=torch.int64), (a.channels, a.height, a.width)
    if isinstance(network, GeneratorNetwork):
        network(torch.zeros(1, a.latent_dim), labels)
        way = "embedded" if getattr(network, "embedding", None) else "one-hot"
        first = Layer("latent", f"beside one of {a.classes} classes, {way}", (a.latent_dim,))
        last = Layer("image", "from -1 to 1", image)
    else:
        network(torch.zeros(1, *image), labels)
        first = Layer("image", "", image)
        last = Layer("logit", f"real or fake, of one of {a.classes} classes", (1,))
    for hook in hooks:
        hook.remove()
    return [first, *found, last]


def network_diagram(network: GeneratorNetwork | DiscriminatorNetwork) -> Picture:
    """uint8 [H, W, 3]: from the top down a box a layer, with its parameters and what it puts out."""
    layers = trace(network)
    figure = Figure(figsize=(9, 0.3 * len(layers) + 0.8))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, 9), ylim=(-len(layers), 2))
    role = "Generator" if isinstance(network, GeneratorNetwork) else "Discriminator"
    total = sum(parameter.numel() for parameter in network.parameters())
    axes.text(0.2, 1.2, f"{role} · {network.architecture.kind} · {total:,} parameters", size=14)
    for x, words, side in ((6.8, "parameters", "right"), (7, "channels × height × width", "left")):
        axes.text(x, 0.3, words, size=8, color="gray", ha=side)
    for row, layer in enumerate(layers):
        edge, face = layer.colours
        axes.add_patch(Rectangle((0.2, -row - 0.9), 6.7, 0.8, facecolor=face, edgecolor=edge))
        number = f"{layer.parameters:,}" if layer.parameters else ""
        shape = " × ".join(f"{size:,}" for size in layer.outputs)
        for x, words, size, side in (
            (0.3, layer.name, 10, "left"),
            (2.1, layer.detail[:70], 8, "left"),
            (6.8, number, 9, "right"),
            (7, shape, 10, "left"),
        ):
            axes.text(x, -row - 0.5, words, size=size, ha=side, va="center")
    return picture_of(figure)
