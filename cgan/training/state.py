"""All that a training changes: networks, optimizers, the generator's EMA, and the records."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cgan.images import Images
from cgan.model.hardware import Hardware, Map, sharing_weights
from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
)
from cgan.params.sections import TrainParams

# What is measured in every step, and the columns of a record: means of these over an interval.
STATS = (
    "loss/discriminator",
    "loss/generator",
    "logits/real_mean",
    "logits/fake_mean",
    "accuracy/discriminator_real",
    "accuracy/discriminator_fake",
)
COLUMNS = ("step", "progress/kimg", "progress/learning_rate", *STATS)
# What a checkpoint holds: each network's name in it, and the attribute of the state; optimizers and records.
NETWORKS = {
    "generator": "generator",
    "discriminator": "discriminator",
    "average": "generator_ema",
}
OPTIMIZERS = ("generator_optimizer", "discriminator_optimizer")
RECORDS = ("history", "probes")
Optimizer = torch.optim.Adam | torch.optim.Adadelta


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """The weights that the optimizer updates."""
    weights: list[Tensor] = optimizer.param_groups[0]["params"]
    return weights


class TrainState:
    """Both networks, both optimizers, the EMA of the generator, and what was recorded so far.

    `generator_ema` is an exponential moving average of the generator's weights, which is what draws.
    """

    def __init__(self, data: Images, params: TrainParams, hardware: Hardware) -> None:
        p, device, (_, channels, height, width) = params, hardware.device, data.pixels.shape
        shape = (data.classes, channels, height, width)
        generator = Architecture(p.generator, *shape, p.generator_width, p.latent_dim, p.max_width)
        discriminator = Architecture(
            p.discriminator,
            *shape,
            p.discriminator_width,
            max_features=p.max_width,
            class_logit_weight=p.class_logit_weight,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            self.generator: GeneratorNetwork = build_generator(generator).to(device)
            self.discriminator: DiscriminatorNetwork = build_discriminator(discriminator).to(device)
        ema: GeneratorNetwork = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_ema = ema
        self.params, self.hardware = params, hardware
        self.generator_optimizer = self._optimizer(self.generator)
        self.discriminator_optimizer = self._optimizer(self.discriminator)
        # On CUDA one stream computes a whole batch faster than parts of it.
        self.parts = p.cpu_parts if device.type == "cpu" else 1
        self.networks = [(self.generator, self.discriminator)]
        for _ in range(1, self.parts):
            pair = sharing_weights(self.generator), sharing_weights(self.discriminator)
            self.networks.append(pair)
        self.map_parts: Map = map  # what works on a batch's parts; in the loop, on threads
        self.step = 0
        self.stats = torch.zeros(p.log_every, len(STATS), device=device)
        self.history: list[list[float]] = []
        self.probes: list[list[float]] = []  # step, kimg, and what was measured there
        self._ema_tensors, self._tensors = (
            [t for t in network.state_dict().values() if t.is_floating_point()]
            for network in (self.generator_ema, self.generator)
        )

    def _optimizer(self, network: nn.Module) -> Optimizer:
        p, device = self.params, self.hardware.device
        weights = [w for w in network.parameters() if w.requires_grad]
        on_cuda = device.type == "cuda"
        if p.optimizer == "adadelta":
            return torch.optim.Adadelta(
                weights, p.lr, p.adadelta_rho, p.adadelta_eps, capturable=on_cuda
            )
        # A tensor on the device, like all that a step reads: no step waits for a copy from the host.
        rate, betas = torch.tensor(p.lr, device=device), (p.adam_beta1, p.adam_beta2)
        return torch.optim.Adam(weights, rate, betas, fused=True, capturable=on_cuda)

    @property
    def kimg(self) -> float:
        """Thousands of images seen so far."""
        return self.step * self.params.batch_size / 1000

    def set_learning_rate(self, rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @torch.no_grad()
    def update_ema(self, weight: float) -> None:
        """ema += weight · (generator - ema), over weights and batch-norm statistics."""
        change = torch._foreach_sub(self._tensors, self._ema_tensors)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(self._ema_tensors, change)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs, by name."""
        tensors = {"stats": self.stats}
        for name in RECORDS:
            tensors[name] = torch.tensor(getattr(self, name), dtype=torch.float64)
        for name, attribute in NETWORKS.items():
            for key, value in getattr(self, attribute).state_dict().items():
                tensors[f"{name}/{key}"] = value
        for name in OPTIMIZERS:
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(weights_of(optimizer)):
                for key, value in optimizer.state[weight].items():
                    tensors[f"{name}/{index}/{key}"] = value
        return tensors

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint of a training with the same fingerprint."""
        self.step = step
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for weight in weights_of(optimizer):
                weight.grad = torch.zeros_like(weight)
            optimizer.step()  # allocates its moments; what it does to the weights is overwritten
        for name, tensor in self.tensors().items():
            if name in RECORDS:
                setattr(self, name, tensors[name].tolist())
            else:
                tensor.copy_(tensors[name])


@torch.no_grad()
def estimate_batch_norm(
    generator: GeneratorNetwork, counts: Tensor, seed: int, batches: int = 40, size: int = 256
) -> None:
    """Measure batch-norm statistics for the generator's EMA, in place: its weights never saw a batch.

    They are means over `batches` batches of `size` drawings, whose classes are in the mix in which the
    training showed them: `counts`, int64 [classes]. Where a batch has no room for every class, all batches
    together have that mix, at random as in the training.
    """
    for norm in generator.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    labels = labels_in_mix(counts, size).expand(batches, size)
    a_batch_has_every_class = len(labels[0].unique()) == int(counts.count_nonzero())
    if not a_batch_has_every_class:
        labels = labels_in_mix(counts, batches * size)
        labels = labels[torch.randperm(len(labels), generator=random)].view(batches, size)
    generator.train()
    for batch_labels in labels.to(device):
        latents = torch.randn(size, generator.architecture.latent_dim, generator=random)
        generator(latents.to(device), batch_labels)
    generator.eval()


def labels_in_mix(counts: Tensor, size: int) -> Tensor:
    """Labels int64 [size], each class as often as its share of `counts` says, spread evenly: the k-th label
    of a class, from 0, has its turn at (k + ½) / count (Sainte-Laguë's apportionment). Classes of equal
    counts alternate, and a class without images, whose turn is at ∞, never comes."""
    turns = (torch.arange(size) + 0.5) / counts[:, None]
    return turns.flatten().argsort(stable=True)[:size] // size
