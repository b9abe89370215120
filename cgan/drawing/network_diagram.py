"""A network as a figure, a line for each layer: what its modules do when they run."""

import torch
from torch import Tensor, nn

from cgan.drawing.plots import Picture, sheet_with
from cgan.models.generative import GenerativeModel
from cgan.models.networks import DiscriminatorNetwork

DETAIL_WIDTH = 90  # characters for what a layer is made of


def diagram(title: str, model: GenerativeModel | DiscriminatorNetwork | None) -> Picture:
    """The layers of a network, or that there is none: uint8 [H, W, 3]."""
    if model is None:
        return sheet_with(f"{title}: none, since this generator is not trained.")
    return sheet_with(*layers_in_words(title, model))


@torch.inference_mode()
def layers_in_words(title: str, model: GenerativeModel | DiscriminatorNetwork) -> list[str]:
    """A header, and each module without children as it ran, in that order: what it is made of, how many
    parameters it has, what it puts out. The model is on the CPU, and set to evaluation."""
    sizes, label = model.architecture, torch.zeros(1, dtype=torch.int64)
    total = sum(parameter.numel() for parameter in model.parameters())
    lines = list[str]()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our ConvTransposeToImages is a ConvTranspose2d to the reader.
        kind = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        detail = module.extra_repr()[: DETAIL_WIDTH - 1]
        count = sum(parameter.numel() for parameter in module.parameters())
        shape = " × ".join(map(str, outputs.shape[1:]))
        lines.append(f"{kind.__name__:<18}{detail:<{DETAIL_WIDTH}}{count:>12,}  {shape}")

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    model.eval()
    if isinstance(model, GenerativeModel):
        model.draw(label, 0)
    else:
        model(torch.zeros(1, sizes.channels, sizes.height, sizes.width), label)
    for hook in hooks:
        hook.remove()
    if lines:
        lines.insert(0, f"{'layer':<18}{'':<{DETAIL_WIDTH}}{'parameters':>12}  puts out")
    return [f"{title}; {total:,} parameters", *lines]
