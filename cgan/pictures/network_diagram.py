"""A network's picture, drawn from what its modules do when they run: types, shapes, parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cgan.model.networks import Discriminator, Generator
from cgan.model.sampling import Picture
from cgan.pictures.canvas import FAINT, INK, Canvas, text_width

WIDTH = 760
LEFT, BOX_WIDTH = 24, 500
SHAPES_X = LEFT + BOX_WIDTH + 24
GAP = 20
IO_HEIGHT = 46
Shape = tuple[int, ...]

COLOURS: dict[str, tuple[str, str]] = {  # of the edge, of the face
    "convolution": ("#2f6db3", "#e3eefa"),
    "linear": ("#17806d", "#dff3ee"),
    "resize": ("#7a4fb5", "#efe7fa"),
    "embedding": ("#b83280", "#fbe4f1"),
    "normalisation": ("#b7791f", "#fdf1d3"),
    "activation": ("#2f855a", "#e2f5e4"),
    "plain": ("#9aa5b1", "#f3f5f7"),
}


@dataclass
class Layer:
    """A module without children, as it ran; shapes without the batch."""

    name: str
    detail: str
    kind: str
    inputs: Shape
    outputs: Shape
    parameters: int


@dataclass
class Block:
    """One box: a layer and the normalisation and activation that follow it."""

    title: str
    detail: str
    kind: str
    outputs: Shape
    parameters: int = 0
    chips: list[Layer] = field(default_factory=list)

    @property
    def height(self) -> int:
        return 62 if self.chips else 38


@torch.inference_mode()
def trace(network: Generator | Discriminator) -> tuple[list[Layer], Shape]:
    """Every layer in the order of its run, and the shape of the network's first output."""
    layers: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        layers.append(
            Layer(
                _name(module),
                _detail(module),
                _kind(module),
                tuple(inputs[0].shape[1:]),
                tuple(outputs.shape[1:]),
                sum(parameter.numel() for parameter in module.parameters()),
            )
        )

    hooks = [
        module.register_forward_hook(record)
        for module in network.modules()
        if next(module.children(), None) is None
    ]
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


def _name(module: nn.Module) -> str:
    """The standard name of what it computes: our PixelDoubling is a ConvTranspose2d to the reader."""
    return (nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)).__name__


def _kind(module: nn.Module) -> str:
    name = _name(module)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if "Norm" in name:
        return "normalisation"
    if "Pool" in name or "Upsample" in name:
        return "resize"
    return "activation" if "activation" in type(module).__module__ else "plain"


def _detail(module: nn.Module) -> str:
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            (height, width), stride, padding = module.kernel_size, module.stride, module.padding
            text = f"{height} x {width}"
            text += f", stride {stride[0]}" if stride[0] != 1 else ""
            return text + (f", padding {padding[0]}" if padding[0] else "")
        case nn.Linear():
            return f"{module.in_features:,} to {module.out_features:,}"
        case nn.Embedding():
            return f"{module.num_embeddings} classes, {module.embedding_dim} numbers each"
        case nn.Upsample():
            return f"x {module.scale_factor:g}, {module.mode}"
        case nn.MaxPool2d():
            return f"{module.kernel_size} x {module.kernel_size}"
        case nn.LeakyReLU():
            return f"{module.negative_slope:g}"
        case nn.ELU():
            return f"{module.alpha:g}"
    return ""


def _blocks(layers: list[Layer], start: Shape) -> list[Block]:
    blocks: list[Block] = []
    shape = start
    for layer in layers:
        if layer.inputs != shape:
            blocks.append(Block("reshape", "", "plain", layer.inputs))
        if layer.kind in ("normalisation", "activation") and blocks and blocks[-1].kind != "plain":
            blocks[-1].chips.append(layer)
            blocks[-1].parameters += layer.parameters
        else:
            blocks.append(
                Block(layer.name, layer.detail, layer.kind, layer.outputs, layer.parameters)
            )
        shape = layer.outputs
    return blocks


def network_diagram(network: Generator | Discriminator) -> Picture:
    """uint8 [H, 760, 3]: inputs at the top, a box a layer, the shape of what it puts out beside it."""
    a = network.architecture
    layers, output = trace(network)
    embedding = next((layer for layer in layers if layer.kind == "embedding"), None)
    layers = [layer for layer in layers if layer is not embedding]
    total = sum(parameter.numel() for parameter in network.parameters())
    image: Shape = (a.channels, a.height, a.width)
    label = ("label", f"one of {a.classes}, one-hot")
    if embedding:
        label = ("label", f"embedding, {embedding.detail}")
    if isinstance(network, Generator):
        role, first, joins = "Generator", ("latent", f"{a.latent_dim} normal numbers"), True
    else:
        role, first = "Discriminator", ("image", _words(image))
        joins = layers[0].inputs != image
        label = ("label", f"{a.classes} constant planes" if joins else f"one of {a.classes}")
    blocks = _blocks(layers, layers[0].inputs)
    if joins:
        blocks.insert(0, Block("concatenate", "", "plain", layers[0].inputs))
    if isinstance(network, Generator) and blocks[-1].outputs != output:
        blocks.append(Block("crop", "", "plain", output))

    endings = _endings(network, joins)
    body = sum(block.height + GAP for block in blocks)
    canvas = Canvas(WIDTH, 84 + IO_HEIGHT + GAP + body + IO_HEIGHT + 24)
    canvas.text(LEFT, 30, f"{role} · {a.kind}", 21, bold=True)
    canvas.text(LEFT, 56, f"{total:,} parameters", 14, FAINT)
    canvas.text(LEFT + BOX_WIDTH - 14, 62, "parameters", 11.5, FAINT, anchor="rm")
    canvas.text(SHAPES_X + 62, 62, "channels x height x width", 11.5, FAINT)
    y = 84.0
    middles = _row(canvas, y, [first, label])
    if embedding:
        x, width = _cells(2)[1]
        _panel(canvas, x, y, width, IO_HEIGHT, "embedding")
        _pair(canvas, x, y, label)
        canvas.text(x + width - 14, y + 15, f"{embedding.parameters:,}", 12.5, FAINT, anchor="rm")
    if not joins:  # the label passes the layers by
        edge, bottom = LEFT + BOX_WIDTH, canvas.height - 24 - IO_HEIGHT / 2
        middle = y + IO_HEIGHT / 2
        canvas.arrow((edge, middle), (edge + 10, middle), (edge + 10, bottom), (edge, bottom))
        middles = middles[:1]
    y += IO_HEIGHT
    largest = max(block.outputs[-1] for block in blocks if len(block.outputs) == 3)
    for block in blocks:
        top = y + GAP
        target = LEFT + BOX_WIDTH / 2
        for middle in middles:
            if middle == target:
                canvas.arrow((middle, y), (target, top))
            else:
                entry = target + math.copysign(24, middle - target) * (len(middles) - 1)
                canvas.arrow((middle, y), (middle, y + 8), (entry, y + 8), (entry, top))
        _block(canvas, top, block, largest)
        y, middles = top + block.height, [target]
    for x, width in _cells(len(endings)):
        middle, entry = x + width / 2, LEFT + BOX_WIDTH / 2
        canvas.arrow((entry, y), (entry, y + 8), (middle, y + 8), (middle, y + GAP))
    _row(canvas, y + GAP, endings)
    return canvas.picture()


def _endings(network: Generator | Discriminator, joins: bool) -> list[tuple[str, str]]:
    a = network.architecture
    if isinstance(network, Generator):
        return [("image", f"{_words((a.channels, a.height, a.width))}, from -1 to 1")]
    if joins:
        return [("logit", "real or fake")]
    weight = a.class_logit_weight
    # of the label, whose arrow points here
    logit = "score + projection" + (f" + {weight:g} x class logit" if weight else "")
    return [
        ("class logits", f"{a.classes}, for the auxiliary loss"),
        ("logit", logit),
    ]


def _words(shape: Shape) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _cells(count: int) -> list[tuple[float, float]]:
    """Left edge and width of `count` boxes side by side."""
    width = (BOX_WIDTH - 16 * (count - 1)) / count
    return [(LEFT + index * (width + 16), width) for index in range(count)]


def _panel(canvas: Canvas, x: float, y: float, width: float, height: float, kind: str) -> None:
    edge, face = COLOURS[kind]
    canvas.box(x, y, width, height, edge, radius=7)
    canvas.box(x + 5, y + 1.2, width - 6.2, height - 2.4, face, radius=5)


def _pair(canvas: Canvas, x: float, y: float, words: tuple[str, str]) -> None:
    canvas.text(x + 16, y + 15, words[0], 14, bold=True)
    canvas.text(x + 16, y + 33, words[1], 11.5, FAINT)


def _row(canvas: Canvas, y: float, words: list[tuple[str, str]]) -> list[float]:
    """Inputs or outputs side by side; returns their middles."""
    middles = []
    for (x, width), pair in zip(_cells(len(words)), words, strict=True):
        _panel(canvas, x, y, width, IO_HEIGHT, "plain")
        _pair(canvas, x, y, pair)
        middles.append(x + width / 2)
    return middles


def _block(canvas: Canvas, y: float, block: Block, largest: int) -> None:
    _panel(canvas, LEFT, y, BOX_WIDTH, block.height, block.kind)
    canvas.text(LEFT + 16, y + 19, block.title, 14, bold=block.kind != "plain")
    x = LEFT + 16 + text_width(block.title, 14) + 12
    canvas.text(x, y + 19.5, block.detail, 13, FAINT)
    if block.parameters:
        canvas.text(
            LEFT + BOX_WIDTH - 14, y + 19.5, f"{block.parameters:,}", 12.5, FAINT, anchor="rm"
        )
    x = LEFT + 16
    for chip in block.chips:
        edge, face = COLOURS[chip.kind]
        words = f"{chip.name} {chip.detail}".strip()
        width = text_width(words, 11.5) + 18
        canvas.box(x, y + 34, width, 20, face, outline=edge, radius=10)
        canvas.text(x + width / 2, y + 44, words, 11.5, edge, anchor="mm")
        x += width + 8
    _maps(canvas, SHAPES_X, y + block.height / 2, block, largest)


def _maps(canvas: Canvas, x: float, middle: float, block: Block, largest: int) -> None:
    """What comes out, as a stack of maps (or a bar) and in numbers."""
    edge, face = COLOURS[block.kind]
    if len(block.outputs) == 3:
        channels, height, width = block.outputs
        unit = 34 / largest
        sheets = 1 + round(math.log2(channels))
        tall, wide = max(3.0, height * unit), max(3.0, width * unit)
        left, top = x + 24 - wide / 2 - sheets, middle - tall / 2 - sheets
        for sheet in range(sheets):
            canvas.box(left + 2 * sheet, top + 2 * sheet, wide, tall, face, outline=edge)
    else:
        long = 8 + 3 * math.log2(block.outputs[0])
        canvas.box(x + 21, middle - long / 2, 6, long, face, outline=edge, radius=2)
    canvas.text(x + 62, middle, _words(block.outputs), 14, INK)
