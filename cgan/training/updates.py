"""The state of a training and its step: an update of each network, in parts of a batch.

A step has no host work in it that waits for the device, so that CUDA can replay it as one graph.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.data.dataset import Dataset
from cgan.model.hardware import Hardware
from cgan.model.model_file import digest_of
from cgan.model.networks import (
    Architecture,
    Discriminator,
    Generator,
    ProjectionDiscriminator,
    build_discriminator,
    build_generator,
)
from cgan.model.parallel import Map, set_gradients, sharing_weights
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed
from cgan.training.losses import (
    decision_threshold,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    r1_penalty,
    slope_ratio,
)

STATS = (
    "loss/discriminator",
    "loss/generator",
    "logits/real_mean",
    "logits/fake_mean",
    "accuracy/discriminator_real",
    "accuracy/discriminator_fake",
)
Optimizer = torch.optim.Adam | torch.optim.Adadelta
Gradients = tuple[Tensor, ...]


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    weights: list[Tensor] = optimizer.param_groups[0]["params"]
    return weights


@dataclass
class Part:
    """A part of a batch, with networks that share the weights and have batch-norm state of their own."""

    generator: Generator
    discriminator: Discriminator
    real: Tensor
    labels: Tensor
    latents: Tensor
    penalise: bool = False
    fakes: Tensor = field(init=False)
    loss: Tensor = field(init=False)
    real_scores: Tensor = field(init=False)
    fake_scores: Tensor = field(init=False)
    generator_loss: Tensor = field(init=False)

    @property
    def projection(self) -> ProjectionDiscriminator:
        """The discriminator, where the update is one that TrainParams allows with no other kind."""
        assert isinstance(self.discriminator, ProjectionDiscriminator)
        return self.discriminator

    def note(self, loss: Tensor, real_scores: Tensor, fake_scores: Tensor) -> None:
        self.loss = loss.detach()
        self.real_scores, self.fake_scores = real_scores.detach(), fake_scores.detach()

    def stats(self, objective: str) -> Tensor:
        """In the order of STATS."""
        threshold, real, fake = decision_threshold(objective), self.real_scores, self.fake_scores
        return torch.stack(
            [
                self.loss,
                self.generator_loss.detach(),
                real.mean(),
                fake.mean(),
                (real > threshold).float().mean(),
                (fake <= threshold).float().mean(),
            ]
        )


class TrainState:
    """Both networks, the averaged generator, both optimizers, and what was recorded so far."""

    def __init__(self, data: Dataset, params: TrainParams, hardware: Hardware) -> None:
        _, channels, height, width = data.images.shape
        image = {"channels": channels, "height": height, "width": width, "classes": data.classes}
        image["max_features"] = params.max_width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed)
            generator = build_generator(
                Architecture(
                    kind=params.generator,
                    features=params.generator_width,
                    latent_dim=params.latent_dim,
                    **image,
                )
            )
            discriminator = build_discriminator(
                Architecture(
                    kind=params.discriminator,
                    features=params.discriminator_width,
                    class_logit_weight=params.class_logit_weight,
                    **image,
                )
            )
        self.params, self.hardware = params, hardware
        self.generator: Generator = generator.to(hardware.device).train()
        self.discriminator: Discriminator = discriminator.to(hardware.device).train()
        self.average: Generator = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_optimizer = self._optimizer(self.generator)
        self.discriminator_optimizer = self._optimizer(self.discriminator)
        # On CUDA one stream computes all of a batch faster than its parts.
        self.parts = params.cpu_parts if hardware.device.type == "cpu" else 1
        self.networks = [(self.generator, self.discriminator)] + [
            (sharing_weights(self.generator), sharing_weights(self.discriminator))
            for _ in range(1, self.parts)
        ]
        self.map: Map = map
        self.step = 0
        self.stats = torch.zeros(params.log_every, len(STATS), device=hardware.device)
        self.history: list[list[float]] = []
        self._pairs = [
            [t for t in net.state_dict().values() if t.is_floating_point()]
            for net in (self.average, self.generator)
        ]

    def _optimizer(self, network: nn.Module) -> Optimizer:
        p = self.params
        weights = [w for w in network.parameters() if w.requires_grad]
        # A tensor, so that the rate can change inside a captured graph.
        rate = torch.tensor(p.lr, device=self.hardware.device)
        if p.optimizer == "adam":
            betas = (p.adam_beta1, p.adam_beta2)
            on_cuda = self.hardware.device.type == "cuda"
            return torch.optim.Adam(weights, rate, betas, fused=True, capturable=on_cuda)
        capturable = self.hardware.device.type == "cuda"
        return torch.optim.Adadelta(
            weights, lr=p.lr, rho=p.adadelta_rho, eps=p.adadelta_eps, capturable=capturable
        )

    def split(self, real: Tensor, labels: Tensor, latents: Tensor) -> list[Part]:
        """A batch → its parts, each with networks that share the weights."""
        pieces = zip(*(tensor.chunk(self.parts) for tensor in (real, labels, latents)), strict=True)
        return [
            Part(*networks, *piece) for networks, piece in zip(self.networks, pieces, strict=True)
        ]

    def update(
        self, optimizer: Optimizer, loss: Callable[[TrainState, Part], Tensor], parts: list[Part]
    ) -> None:
        """One update on the mean of the parts' losses. Gradients of other weights aren't computed."""
        weights = weights_of(optimizer)

        def gradients(part: Part) -> Gradients:
            return torch.autograd.grad(loss(self, part) / len(parts), weights)

        self.apply(optimizer, self.map(gradients, parts))

    def apply(self, optimizer: Optimizer, by_part: Iterable[Gradients]) -> None:
        """One update on the sum of the parts' gradients."""
        weights = weights_of(optimizer)
        set_gradients(weights, by_part)
        if self.params.gradient_clip:
            nn.utils.clip_grad_value_(weights, self.params.gradient_clip)
        optimizer.step()

    def set_learning_rate(self, rate: Tensor) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = float(rate)

    @torch.no_grad()
    def update_average(self, weight: Tensor) -> None:
        """average += weight · (generator - average), over weights and batch-norm statistics."""
        average, newest = self._pairs
        change = torch._foreach_sub(newest, average)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(average, change)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs, by name."""
        tensors = {"stats": self.stats, "history": torch.tensor(self.history, dtype=torch.float64)}
        for name in ("generator", "discriminator", "average"):
            network: nn.Module = getattr(self, name)
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(optimizer.param_groups[0]["params"]):
                for key, value in optimizer.state[weight].items():
                    tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
        return tensors

    def digests(self) -> dict[str, str]:
        """sha256 of each part of the state, to compare two trainings bit for bit."""
        tensors = self.tensors()
        networks = ("generator", "discriminator", "average")
        optimizers = ("generator_optimizer", "discriminator_optimizer")
        parts = {name: _below(tensors, f"{name}/") for name in (*networks, *optimizers)}
        parts["history"] = {"history": tensors["history"]}
        return {name: digest_of(part) for name, part in parts.items()}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint of a training with the same fingerprint."""
        self.step = step
        self.stats.copy_(tensors["stats"])
        self.history = tensors["history"].tolist()
        for name in ("generator", "discriminator", "average"):
            network: nn.Module = getattr(self, name)
            network.load_state_dict(_below(tensors, f"{name}/"))
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(optimizer.param_groups[0]["params"]):
                # Fused optimizers walk the memory of weights and moments side by side, so the
                # moments must get the weights' strides (channels-last) back.
                optimizer.state[weight] = {
                    key: torch.empty_like(weight).copy_(value)
                    if value.shape == weight.shape
                    else value.to(weight.device)
                    for key, value in _below(tensors, f"{name}/{index}/").items()
                }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def draw_fakes(state: TrainState, part: Part) -> Tensor:
    """Fakes [B, C, H, W] float32 in [-1, 1], with the generator's graph behind them."""
    with state.hardware.autocast():
        fakes: Tensor = part.generator(part.latents, part.labels)
    return fakes.float()


def score(
    state: TrainState, part: Part, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    with state.hardware.autocast():
        scores: tuple[Tensor, Tensor | None] = part.discriminator(images, labels)
    return scores


def joint_loss(state: TrainState, part: Part) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on fakes and reals in one batch, and the first maps of both.

    To a network without batch norm it is the same as apart, and faster.
    """
    p, labels, discriminator = state.params, part.labels, part.projection
    part.real.requires_grad_(part.penalise)
    part.fakes = draw_fakes(state, part)
    with state.hardware.autocast():
        maps = discriminator.first_maps(torch.cat([part.fakes.detach(), part.real]))
        scores, class_logits = discriminator.from_first_maps(maps, labels.repeat(2))
    fake, real = scores.chunk(2)
    loss = discriminator_fake_loss(p.objective, fake) + discriminator_real_loss(p.objective, real)
    part.note(loss, real, fake)
    loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits.chunk(2)[1], labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, part.real)
    return loss, maps


def both_gradients(state: TrainState, parts: int, part: Part) -> tuple[Gradients, Gradients]:
    """Of one of `parts` parts: the discriminator's gradients and the generator's, for their weights.

    A fake's gradient for one network's loss is a multiple of that for the other's. So the pass back for
    the discriminator is followed to its first maps, where the fakes' half is turned into the generator's
    gradient, and from there through the generator alone.
    """
    objective = state.params.objective
    loss, maps = joint_loss(state, part)
    part.generator_loss = generator_loss(objective, part.fake_scores)
    *for_discriminator, at_maps = torch.autograd.grad(
        loss / parts, [*weights_of(state.discriminator_optimizer), maps]
    )
    at_maps = at_maps.chunk(2)[0] * slope_ratio(objective, part.fake_scores)[:, None, None, None]
    with state.hardware.autocast():
        at_fakes = part.projection.gradient_at_images(at_maps)
    weights = weights_of(state.generator_optimizer)
    return tuple(for_discriminator), torch.autograd.grad(part.fakes, weights, at_fakes)


def one_pass(state: TrainState, parts: list[Part]) -> None:
    """One update of each network from one pass of fakes and reals through the discriminator."""
    both = list(state.map(functools.partial(both_gradients, state, len(parts)), parts))
    state.apply(state.discriminator_optimizer, [gradients for gradients, _ in both])
    state.apply(state.generator_optimizer, [gradients for _, gradients in both])


def loss_on_fakes(state: TrainState, part: Part) -> Tensor:
    """The first of the demo's two discriminator updates."""
    part.fakes = draw_fakes(state, part)
    fake, _ = score(state, part, part.fakes.detach(), part.labels)
    loss = discriminator_fake_loss(state.params.objective, fake)
    part.note(loss, fake, fake)
    return loss


def loss_on_reals(state: TrainState, part: Part) -> Tensor:
    """The second one."""
    p = state.params
    part.real.requires_grad_(part.penalise)
    real, class_logits = score(state, part, part.real, part.labels)
    loss = discriminator_real_loss(p.objective, real)
    part.note(part.loss + loss, real, part.fake_scores)
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, part.real)
    return loss


def generator_loss_of(state: TrainState, part: Part) -> Tensor:
    """Through the updated discriminator, on the same fakes."""
    p = state.params
    scores, class_logits = score(state, part, part.fakes, part.labels)
    loss = part.generator_loss = generator_loss(p.objective, scores)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.labels)
    return loss


def two_passes(state: TrainState, parts: list[Part]) -> None:
    """The discriminator first, then the generator through the updated one."""
    state.update(state.discriminator_optimizer, lambda *args: joint_loss(*args)[0], parts)
    state.update(state.generator_optimizer, generator_loss_of, parts)


def in_turn(state: TrainState, parts: list[Part]) -> None:
    """The demo's three updates. They ask nothing of the networks; batch norm sees one kind of image."""
    for loss in (loss_on_fakes, loss_on_reals):
        state.update(state.discriminator_optimizer, loss, parts)
    state.update(state.generator_optimizer, generator_loss_of, parts)


UPDATES = {"one_pass": one_pass, "two_passes": two_passes, "in_turn": in_turn}


def train_step(state: TrainState, feed: Feed, penalise: bool) -> None:
    """One update of each network. No host sync, no allocation that a CUDA graph could not replay."""
    position = feed.position.clone()
    parts = state.split(*feed.next())
    for part in parts:
        part.penalise = penalise
    rate, weight = feed.advance()
    state.set_learning_rate(rate)
    UPDATES[state.params.updates](state, parts)
    state.update_average(weight)
    row = torch.stack([part.stats(state.params.objective) for part in parts]).mean(dim=0)
    state.stats.index_copy_(0, position, row[None])


def stepper(state: TrainState, feed: Feed) -> Callable[[bool], None]:
    """`train_step` as the hardware runs it best: as captured CUDA graphs, or plainly."""
    plain = functools.partial(train_step, state, feed)
    # Adadelta takes its rate as a number of the host's, which a graph would freeze.
    if state.hardware.device.type != "cuda" or state.params.optimizer != "adam":
        return plain
    return Graphs(plain, state.hardware.device)


class Graphs:
    """A step as one CUDA graph a variant: its 200 kernels are launched at once, not one by one.

    The first calls of a variant run plainly on a side stream (they are steps like any other, and
    warm up what a capture must not do), the next one captures; from then on the graph is replayed.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[bool], None], device: torch.device) -> None:
        self.step, self.stream = step, torch.cuda.Stream(device)
        self.calls = {True: 0, False: 0}
        self.graphs: dict[bool, torch.cuda.CUDAGraph] = {}

    def __call__(self, penalise: bool) -> None:
        if penalise in self.graphs:
            self.graphs[penalise].replay()
            return
        if self.calls[penalise] < self.WARM_UP:
            self.calls[penalise] += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(penalise)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(penalise)  # recorded, not run
        self.graphs[penalise] = graph
        graph.replay()


@torch.no_grad()
def estimate_batch_norm(
    generator: Generator, seed: int, batches: int = 40, size: int = 256
) -> None:
    """Give the averaged generator batch-norm statistics of its own: averaged weights never saw any.

    Cumulative over `batches` × `size` drawings with balanced labels.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    labels = (torch.arange(size) % generator.architecture.classes).to(device)
    generator.train()
    for _ in range(batches):
        latents = torch.randn(size, generator.architecture.latent_dim, generator=random)
        generator(latents.to(device), labels)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
