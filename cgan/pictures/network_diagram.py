"""A network's picture, drawn from what its modules do when they run: types, shapes, parameters."""

import textwrap
from dataclasses import asdict, dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import Tensor, nn

from cgan.model.generative import GenerativeModel
from cgan.model.local_score import LocalScoreSampler
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.pictures.plots import Picture, picture_of, sheet_with

DETAIL_WIDTH = 62  # characters for what a layer is made of; a row has room for two lines
# Colours of layers with and without parameters, and of what goes in and comes out.
LEARNT, FIXED, ENDS = "#e3eefa", "#e2f5e4", "#fdf1d3"


@dataclass
class Layer:
    """A module without children, as it ran, or what a network begins and ends with; no batch in `outputs`."""

    name: str
    detail: str
    outputs: tuple[int, ...]
    parameters: int = 0
    colour: str = ENDS


@torch.inference_mode()
def trace(network: GeneratorNetwork | DiscriminatorNetwork) -> list[Layer]:
    """The input, every layer in the order of its run, and the output. The network is on the CPU, and set to
    evaluation."""
    sizes = network.architecture
    layers: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our ConvTransposeToImages is a ConvTranspose2d to the reader.
        kind = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        count, shape = sum(w.numel() for w in module.parameters()), tuple(outputs.shape[1:])
        colour = LEARNT if count else FIXED
        layers.append(Layer(kind.__name__, module.extra_repr(), shape, count, colour))

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    network.eval()
    labels, image = torch.zeros(1, dtype=torch.int64), (sizes.channels, sizes.height, sizes.width)
    if isinstance(network, GeneratorNetwork):
        network(torch.zeros(1, sizes.latent_dim), labels)
        way = "embedded" if getattr(network, "embedding", None) else "one-hot"
        first = Layer(
            "latent", f"beside one of {sizes.classes} classes, {way}", (sizes.latent_dim,)
        )
        last = Layer("image", "from -1 to 1", image)
    else:
        network(torch.zeros(1, *image), labels)
        first = Layer("image", "", image)
        last = Layer("logit", f"real or fake, of one of {sizes.classes} classes", (1,))
    for hook in hooks:
        hook.remove()
    return [first, *layers, last]


def diagram(model: GenerativeModel | DiscriminatorNetwork | None) -> Picture:
    """The diagram of a network, or a sampler's settings, or that there is no network: uint8 [H, W, 3]."""
    if isinstance(model, GeneratorNetwork | DiscriminatorNetwork):
        return network_diagram(model)
    if isinstance(model, LocalScoreSampler):
        settings = [f"{name}: {value:g}" for name, value in asdict(model.settings).items()]
        return sheet_with(
            f"Local score sampler of {len(model.images):,} training images", *settings
        )
    return sheet_with(
        "No discriminator: this generator is not trained, it draws from its training images."
    )


def network_diagram(network: GeneratorNetwork | DiscriminatorNetwork) -> Picture:
    """A network as a table, uint8 [H, W, 3]: from the top down a row a layer, with its parameters and the
    shape that it puts out."""
    layers = trace(network)
    figure = Figure(figsize=(9, 0.3 * len(layers) + 1))
    axes = figure.add_axes((0.02, 0, 0.96, 1 - 0.5 / figure.get_figheight()))
    axes.axis("off")
    role = "Generator" if isinstance(network, GeneratorNetwork) else "Discriminator"
    total = sum(parameter.numel() for parameter in network.parameters())
    axes.set_title(f"{role} · {network.architecture.kind} · {total:,} parameters", loc="left")
    rows = [["layer", "", "parameters", "puts out"]]
    for layer in layers:
        shape = " × ".join(f"{size:,}" for size in layer.outputs)
        count = f"{layer.parameters:,}" if layer.parameters else ""
        detail = textwrap.fill(layer.detail, DETAIL_WIDTH)
        rows.append([layer.name, detail, count, shape])
    colours = [[colour] * 4 for colour in ("white", *(layer.colour for layer in layers))]
    widths = [0.18, 0.53, 0.12, 0.17]
    table = axes.table(rows, colours, "left", colWidths=widths, bbox=Bbox.unit())
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for cell in table.get_celld().values():
        cell.set_edgecolor("white")
    return picture_of(figure)
