"""A network's picture, drawn from what its modules do when they run: types, shapes, parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cgan.model.networks import Discriminator, Generator
from cgan.model.sampling import Picture
from cgan.pictures.canvas import FAINT, Canvas, text_width

WIDTH, LEFT, BOX_WIDTH, TOP = 900, 24, 670, 84
HEIGHT, GAP = 30, 16
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
def trace(network: Generator | Discriminator) -> list[Layer]:
    """What goes in, every layer in the order of its run, and what comes out."""
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
    was_training = network.training
    network.eval()
    try:
        device = next(network.parameters()).device
        labels = torch.zeros(1, dtype=torch.int64, device=device)
        image = (a.channels, a.height, a.width)
        if isinstance(network, Generator):
            network(torch.zeros(1, a.latent_dim, device=device), labels)
            way = "embedded" if getattr(network, "embedding", None) else "one-hot"
            latent = Layer("latent", f"beside one of {a.classes} classes, {way}", (a.latent_dim,))
            return [latent, *found, Layer("image", "from -1 to 1", image)]
        network(torch.zeros(1, *image, device=device), labels)
        end = Layer("logit", f"real or fake, of one of {a.classes} classes", (1,))
        return [Layer("image", "", image), *found, end]
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()


def network_diagram(network: Generator | Discriminator) -> Picture:
    """uint8 [H, 900, 3]: from the top down a box a layer, the shape of what it puts out beside it.

    What has nothing to learn, such as an activation, stands close under the layer before it.
    """
    layers = trace(network)
    gaps = [GAP if layer.colours is not FIXED else 2 for layer in layers]
    canvas = Canvas(WIDTH, TOP + sum(gaps) + HEIGHT * len(layers) + 8)
    role = "Generator" if isinstance(network, Generator) else "Discriminator"
    total = sum(parameter.numel() for parameter in network.parameters())
    canvas.text(LEFT, 30, f"{role} · {network.architecture.kind}", 21, bold=True)
    canvas.text(LEFT, 56, f"{total:,} parameters", 14, FAINT)
    canvas.text(LEFT + BOX_WIDTH - 14, 62, "parameters", 11.5, FAINT, anchor="rm")
    canvas.text(LEFT + BOX_WIDTH + 20, 62, "channels x height x width", 11.5, FAINT)
    y = TOP - GAP
    for layer, gap in zip(layers, gaps, strict=True):
        top, middle = y + gap, y + gap + HEIGHT / 2
        if gap == GAP and y > TOP:
            canvas.arrow(LEFT + BOX_WIDTH / 2, y, top)
        edge, face = layer.colours
        canvas.box(LEFT, top, BOX_WIDTH, HEIGHT, face, edge, radius=6)
        canvas.text(LEFT + 16, middle, layer.name, 14, bold=gap == GAP)
        canvas.text(LEFT + 28 + text_width(layer.name, 14), middle, layer.detail, 11.5, FAINT)
        if layer.parameters:
            number = f"{layer.parameters:,}"
            canvas.text(LEFT + BOX_WIDTH - 14, middle, number, 12.5, FAINT, anchor="rm")
        shape = " x ".join(f"{size:,}" for size in layer.outputs)
        canvas.text(LEFT + BOX_WIDTH + 20, middle, shape, 14)
        y = top + HEIGHT
    return canvas.picture()
