"""A network's picture, drawn from what its modules do when they run: types, shapes, parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cgan.model.networks import Discriminator, Generator
from cgan.model.sampling import Picture
from cgan.pictures.canvas import FAINT, Canvas, text_width

WIDTH = 760
LEFT, BOX_WIDTH, TOP = 24, 520, 84
SHAPES_X = LEFT + BOX_WIDTH + 20
HEIGHT, GAP = 32, 18
Shape = tuple[int, ...]

COLOURS: dict[str, tuple[str, str]] = {  # of the edge, of the face
    "convolution": ("#2f6db3", "#e3eefa"),
    "linear": ("#17806d", "#dff3ee"),
    "resize": ("#7a4fb5", "#efe7fa"),
    "label": ("#b83280", "#fbe4f1"),
    "normalisation": ("#b7791f", "#fdf1d3"),
    "activation": ("#2f855a", "#e2f5e4"),
    "plain": ("#9aa5b1", "#f3f5f7"),
}


@dataclass
class Layer:
    """A module without children, as it ran, or a step between two; shapes without the batch."""

    name: str
    detail: str
    kind: str
    outputs: Shape
    inputs: Shape = ()
    parameters: int = 0


@torch.inference_mode()
def trace(network: Generator | Discriminator) -> tuple[list[Layer], Shape]:
    """Every layer in the order of its run, and the shape of the network's first output."""
    layers: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our PixelDoubling is a ConvTranspose2d to the reader.
        kind = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        layers.append(
            Layer(
                kind.__name__,
                *_detail_and_kind(module),
                tuple(outputs.shape[1:]),
                tuple(inputs[0].shape[1:]),
                sum(parameter.numel() for parameter in module.parameters()),
            )
        )

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    was_training = network.training
    network.eval()
    try:
        a = network.architecture
        device = next(network.parameters()).device
        labels = torch.zeros(1, dtype=torch.int64, device=device)
        if isinstance(network, Generator):
            output = network(torch.zeros(1, a.latent_dim, device=device), labels)
        else:
            images = torch.zeros(1, a.channels, a.height, a.width, device=device)
            output = network(images, labels)[0]
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return layers, tuple(output.shape[1:])


def _detail_and_kind(module: nn.Module) -> tuple[str, str]:
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            (height, width), stride, padding = module.kernel_size, module.stride, module.padding
            return f"{height} x {width}, stride {stride[0]}, padding {padding[0]}", "convolution"
        case nn.Linear():
            return f"{module.in_features:,} to {module.out_features:,}", "linear"
        case nn.Embedding():
            return f"an embedding of {module.embedding_dim} numbers", "label"
        case nn.Upsample():
            return f"x {module.scale_factor:g}, {module.mode}", "resize"
        case nn.MaxPool2d():
            return f"{module.kernel_size} x {module.kernel_size}", "resize"
        case nn.LeakyReLU():
            return f"{module.negative_slope:g}", "activation"
        case nn.ELU():
            return f"{module.alpha:g}", "activation"
        case nn.BatchNorm2d():
            return "", "normalisation"
    return "", "activation" if "activation" in type(module).__module__ else "plain"


def _steps(network: Generator | Discriminator) -> list[Layer]:
    """The layers with what goes in and comes out, and the label where it joins."""
    a = network.architecture
    layers, output = trace(network)
    image: Shape = (a.channels, a.height, a.width)
    if isinstance(network, Generator):
        way = layers.pop(0) if layers[0].kind == "label" else Layer("", "one-hot", "", ())
        words = f"one of {a.classes}, {way.detail}"
        joined = layers[0].inputs
        steps = [
            Layer("latent", f"{a.latent_dim} normal numbers", "plain", (a.latent_dim,)),
            Layer("+ label", words, "label", joined, parameters=way.parameters),
        ]
        end = [Layer("image", "from -1 to 1", "plain", output)]
        if layers[-1].outputs != output:
            end.insert(0, Layer("crop", "", "plain", output))
    else:
        steps = [Layer("image", "", "plain", image)]
        end = [Layer("logit", "real or fake", "plain", ())]
        if layers[0].inputs != image:
            words = f"one of {a.classes}, as constant planes"
            steps += [Layer("+ label", words, "label", layers[0].inputs)]
        else:
            logit = f" + {a.class_logit_weight:g} x class logit" if a.class_logit_weight else ""
            end.insert(0, Layer("+ label", f"score + projection{logit}", "label", ()))
            end[-1].detail += f"; and {a.classes} class logits for the auxiliary loss"
    for layer in layers:
        if layer.inputs != steps[-1].outputs:
            steps.append(Layer("reshape", "", "plain", layer.inputs))
        steps.append(layer)
    return steps + end


def network_diagram(network: Generator | Discriminator) -> Picture:
    """uint8 [H, 760, 3]: from the top down a box a layer, the shape of what it puts out beside it.

    Normalisation and activation stand close under their layer.
    """
    steps = _steps(network)
    gaps = [2 if step.kind in ("normalisation", "activation") else GAP for step in steps]
    canvas = Canvas(WIDTH, TOP + sum(gaps) - GAP + HEIGHT * len(steps) + 24)
    role = "Generator" if isinstance(network, Generator) else "Discriminator"
    total = sum(parameter.numel() for parameter in network.parameters())
    canvas.text(LEFT, 30, f"{role} · {network.architecture.kind}", 21, bold=True)
    canvas.text(LEFT, 56, f"{total:,} parameters", 14, FAINT)
    canvas.text(LEFT + BOX_WIDTH - 14, 62, "parameters", 11.5, FAINT, anchor="rm")
    canvas.text(SHAPES_X, 62, "channels x height x width", 11.5, FAINT)
    y = TOP - GAP
    for step, gap in zip(steps, gaps, strict=True):
        top, middle = y + gap, y + gap + HEIGHT / 2
        if gap == GAP and y > TOP:
            canvas.arrow(LEFT + BOX_WIDTH / 2, y, top)
        edge, face = COLOURS[step.kind]
        canvas.box(LEFT, top, BOX_WIDTH, HEIGHT, edge, radius=7)
        canvas.box(LEFT + 5, top + 1.2, BOX_WIDTH - 6.2, HEIGHT - 2.4, face, radius=5)
        canvas.text(LEFT + 16, middle, step.name, 14, bold=gap == GAP)
        canvas.text(LEFT + 28 + text_width(step.name, 14), middle, step.detail, 13, FAINT)
        if step.parameters:
            number = f"{step.parameters:,}"
            canvas.text(LEFT + BOX_WIDTH - 14, middle, number, 12.5, FAINT, anchor="rm")
        canvas.text(SHAPES_X, middle, " x ".join(f"{size:,}" for size in step.outputs), 14)
        y = top + HEIGHT
    return canvas.picture()
