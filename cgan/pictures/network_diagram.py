"""A network as a figure, a line for each layer: what its modules do when they run."""

from dataclasses import asdict

import torch
from torch import Tensor, nn

from cgan.model.generative import GenerativeModel
from cgan.model.local_score import LocalScoreSampler
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.pictures.plots import Picture, sheet_with

DETAIL_WIDTH = 90  # characters for what a layer is made of


def diagram(model: GenerativeModel | DiscriminatorNetwork | None) -> Picture:
    """The layers of a network, or a sampler's settings, or that there is no network: uint8 [H, W, 3]."""
    if isinstance(model, GeneratorNetwork | DiscriminatorNetwork):
        return sheet_with(*layers_in_words(model))
    if isinstance(model, LocalScoreSampler):
        settings = [f"{name}: {value:g}" for name, value in asdict(model.settings).items()]
        return sheet_with(f"Local score sampler of {len(model.images):,} images", *settings)
    return sheet_with("No discriminator: this generator is not trained.")


@torch.inference_mode()
def layers_in_words(network: GeneratorNetwork | DiscriminatorNetwork) -> list[str]:
    """A header, and each module without children as it ran, in that order: what it is made of, how many
    parameters it has, what it puts out. The network is on the CPU, and set to evaluation."""
    sizes, label = network.architecture, torch.zeros(1, dtype=torch.int64)
    if isinstance(network, GeneratorNetwork):
        role, given = "Generator", torch.zeros(1, sizes.latent_dim)
    else:
        role, given = "Discriminator", torch.zeros(1, sizes.channels, sizes.height, sizes.width)
    total = sum(parameter.numel() for parameter in network.parameters())
    lines = [
        f"{role} ({sizes.kind}): {total:,} parameters",
        f"{'layer':<18}{'':<{DETAIL_WIDTH}}{'parameters':>12}  puts out",
    ]

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our ConvTransposeToImages is a ConvTranspose2d to the reader.
        kind = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        detail = module.extra_repr()[: DETAIL_WIDTH - 1]
        count = sum(parameter.numel() for parameter in module.parameters())
        shape = " × ".join(map(str, outputs.shape[1:]))
        lines.append(f"{kind.__name__:<18}{detail:<{DETAIL_WIDTH}}{count:>12,}  {shape}")

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    network.eval()(given, label)
    for hook in hooks:
        hook.remove()
    return lines
