"""Everything that a training changes: networks, optimizers, the generator's average, records; and its
checkpoints, one file each."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cgan.data.images import Images
from cgan.models.hardware import Hardware, without_compiler
from cgan.models.model_file import load_tensors, save_tensors
from cgan.models.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
)
from cgan.models.parallel import Map, copy_sharing_weights
from cgan.params.sections import TrainParams

# What is measured in every step; `BatchPart.stats` gives the values.
STATS = (
    "loss/discriminator",
    "loss/generator",
    "logits/real_mean",
    "logits/fake_mean",
    "accuracy/discriminator_real",
    "accuracy/discriminator_fake",
)
# What a probe measures.
PROBE_METRICS = (
    "probe/conditional_accuracy",
    "probe/fid_judge",
    "probe/diversity_mean",
    "probe/diversity_worst_class",
)
# The columns of the records: of `history`, with the means of STATS since the record before, and of `probes`.
HISTORY_COLUMNS = ("step", "progress/kimg", "progress/learning_rate", *STATS)
PROBE_COLUMNS = ("step", "progress/kimg", *PROBE_METRICS)
# What a checkpoint holds, by the names of `TrainState`'s attributes.
NETWORKS = ("generator", "discriminator", "generator_ema")
OPTIMIZERS = ("generator_optimizer", "discriminator_optimizer")
RECORDS = {"history": HISTORY_COLUMNS, "probes": PROBE_COLUMNS}

# The parts of a batch that a CPU computes at once, each with its own batch norm: their number is fixed, so
# that a result does not depend on how many cores a machine has.
CPU_PARTS = 2
ADAM_BETA2 = 0.95
DEMO_ADADELTA_RHO, DEMO_ADADELTA_EPS = 0.92, 1e-6

Optimizer = torch.optim.Adam | torch.optim.Adadelta
Record = dict[str, float]  # a value per column


def optimizer_weights(optimizer: Optimizer) -> list[Tensor]:
    """The weights that the optimizer updates."""
    weights: list[Tensor] = optimizer.param_groups[0]["params"]
    return weights


class TrainState:
    """Both networks, both optimizers, the records so far, and `generator_ema`, which draws: the exponential
    moving average of the generator's weights."""

    def __init__(self, data: Images, params: TrainParams, hardware: Hardware) -> None:
        p, device = params, hardware.device
        channels, height, width = data.shape
        sizes = {"classes": data.classes, "channels": channels, "height": height, "width": width}
        generator = Architecture(
            p.generator,
            **sizes,
            features=p.generator_width,  # channels of the largest maps
            latent_dim=p.latent_dim,
            max_features=p.max_width,
        )
        discriminator = Architecture(
            "demo" if p.is_demo else "projection",
            **sizes,
            features=p.discriminator_width,
            max_features=p.max_width,
            class_logit_weight=p.class_logit_weight,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            self.generator: GeneratorNetwork = build_generator(generator).to(device)
            self.discriminator: DiscriminatorNetwork = build_discriminator(discriminator).to(device)
        self.generator_ema: GeneratorNetwork = copy.deepcopy(self.generator).eval()
        self.generator_ema.requires_grad_(False)
        self.params, self.hardware = params, hardware
        self.generator_optimizer = self._build_optimizer(self.generator)
        self.discriminator_optimizer = self._build_optimizer(self.discriminator)
        # On a GPU one stream computes a whole batch faster than parts of it. The demo has batch norm in both
        # networks, which sees the whole.
        self.part_count = CPU_PARTS if device.type == "cpu" and not p.is_demo else 1
        # Generator and discriminator of each part of a batch; the first part has the networks themselves.
        self.part_networks = [(self.generator, self.discriminator)]
        for _ in range(1, self.part_count):
            pair = copy_sharing_weights(self.generator), copy_sharing_weights(self.discriminator)
            self.part_networks.append(pair)
        self.map_parts: Map = map  # computes on all parts of a batch; in the loop, on threads
        self.step = 0
        self.stats: list[Tensor] = []  # of each step since the last record, float32 [6]
        self.history: list[Record] = []
        self.probes: list[Record] = []
        self._generator_tensors = _float_tensors(self.generator)
        self._ema_tensors = _float_tensors(self.generator_ema)

    def _build_optimizer(self, network: nn.Module) -> Optimizer:
        p, device = self.params, self.hardware.device
        weights = [w for w in network.parameters() if w.requires_grad]
        on_cuda = device.type == "cuda"
        if p.is_demo:
            return without_compiler(torch.optim.Adadelta)(
                weights, p.lr, DEMO_ADADELTA_RHO, DEMO_ADADELTA_EPS, capturable=on_cuda
            )
        # A tensor on the device, like all that a step reads: no step waits for a copy from the host.
        lr = torch.tensor(p.lr, device=device)
        betas = p.adam_beta1, ADAM_BETA2
        return without_compiler(torch.optim.Adam)(
            weights, lr, betas, fused=True, capturable=on_cuda
        )

    @property
    def optimizers(self) -> tuple[Optimizer, Optimizer]:
        return self.generator_optimizer, self.discriminator_optimizer

    @property
    def kimg(self) -> float:
        """Thousands of images seen so far."""
        return self.step * self.params.batch_size / 1000

    @property
    def interval_stats(self) -> Tensor:
        """`stats` of the steps since the last record, float32 [steps, 6]."""
        none = torch.zeros(0, len(STATS), device=self.hardware.device)
        return torch.stack(self.stats) if self.stats else none

    def set_learning_rate(self, lr: float) -> None:
        for optimizer in self.optimizers:
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    @torch.no_grad()
    def update_ema(self, weight: float) -> None:
        """ema += weight · (generator - ema), over weights and batch-norm statistics."""
        change = torch._foreach_sub(self._generator_tensors, self._ema_tensors)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(self._ema_tensors, change)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs, by name."""
        tensors = {"stats": self.interval_stats}
        for name in RECORDS:
            rows = [[*record.values()] for record in getattr(self, name)]
            tensors[name] = torch.tensor(rows, dtype=torch.float64)
        for name in NETWORKS:
            for key, value in getattr(self, name).state_dict().items():
                tensors[f"{name}/{key}"] = value
        for name in OPTIMIZERS:
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(optimizer_weights(optimizer)):
                for key, value in optimizer.state[weight].items():
                    tensors[f"{name}/{index}/{key}"] = value
        return tensors

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint of a training with the same fingerprint. `tensors()` shares the memory of
        networks and optimizers, so what is copied into it is theirs."""
        self.step = step
        for optimizer in self.optimizers:
            for weight in optimizer_weights(optimizer):
                weight.grad = torch.zeros_like(weight)
            optimizer.step()  # allocates its moments; what it does to the weights is overwritten
        self.stats = [*tensors["stats"].to(self.hardware.device)]
        for name, tensor in self.tensors().items():
            if "/" in name:  # of a network or an optimizer
                tensor.copy_(tensors[name])
        for name, columns in RECORDS.items():
            rows = tensors[name].tolist()
            setattr(self, name, [dict(zip(columns, row, strict=True)) for row in rows])


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the checkpoint of a step, and remove the one before."""
    path = folder / f"step-{step:09d}.safetensors"
    save_tensors(path, "checkpoint", tensors, {"step": step})
    for old in folder.glob("step-*.safetensors"):
        if old != path:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """The newest checkpoint as (step, tensors), or None. Raises ModelError for a damaged one."""
    newest = max(folder.glob("step-*.safetensors"), default=None)
    if not newest:
        return None
    tensors, facts = load_tensors(newest, "checkpoint")
    return int(facts["step"]), tensors


def _float_tensors(network: nn.Module) -> list[Tensor]:
    """The weights and batch-norm statistics, without the counts of batches."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def estimate_batch_norm(
    generator: GeneratorNetwork, counts: Tensor, seed: int, batches: int = 40, size: int = 256
) -> None:
    """Measure the batch-norm statistics of the generator's EMA, in place: the running ones are those of the
    weights that were trained, not of their average.

    They become means over `batches` batches of `size` drawings, with the classes in the proportions of
    `counts`, int64 [classes]; at random where a batch has no room for every class.
    """
    for norm in generator.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean
    device = next(generator.parameters()).device
    rng = torch.Generator().manual_seed(seed)
    labels = proportional_labels(counts, size).expand(batches, size)
    present_classes = int(counts.count_nonzero())
    if len(labels[0].unique()) < present_classes:
        labels = proportional_labels(counts, batches * size)
        labels = labels[torch.randperm(len(labels), generator=rng)].view(batches, size)
    generator.train()
    for batch_labels in labels.to(device):
        latents = torch.randn(size, generator.architecture.latent_dim, generator=rng)
        generator(latents.to(device), batch_labels)
    generator.eval()


def proportional_labels(counts: Tensor, size: int) -> Tensor:
    """Labels int64 [size], the classes in proportion to `counts` and spread evenly: the k-th label of a
    class, from 0, has its turn at (k + ½) / count (Sainte-Laguë's apportionment), and the first `size` turns
    are taken. Classes of equal counts alternate; a class without images, whose turn is at ∞, never comes."""
    turns = (torch.arange(size) + 0.5) / counts[:, None]
    return turns.flatten().argsort(stable=True)[:size] // size
