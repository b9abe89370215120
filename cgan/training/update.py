"""One training step, in the order of time: the batch in parts, both networks' updates, the average.

There are three ways to update the networks, each built from the losses below it, and these from the formulas
at the end. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from cgan.models.hardware import Hardware
from cgan.models.networks import DiscriminatorNetwork, GeneratorNetwork, ProjectionDiscriminator
from cgan.models.parallel import set_gradients
from cgan.params.sections import TrainParams
from cgan.training.batches import Batch, Feed, ema_weight, learning_rate, shift
from cgan.training.state import Optimizer, TrainState, optimizer_weights

Gradients = tuple[Tensor, ...]  # one for each weight of a network
R1_EVERY = 16  # steps between lazy R1 penalties
DEMO_GRADIENT_CLIP = 1.0  # the largest value of a gradient, and the lowest, with a minus


def train_step(state: TrainState, feed: Feed) -> None:
    """One training step: the generator is updated once, the discriminator once (the demo's: twice), then
    the average of the generator; and the step's statistics are kept."""
    p, step = state.params, state.step
    state.set_learning_rate(learning_rate(p, step))
    with_r1 = p.r1_gamma > 0 and step % R1_EVERY == 0
    parts = split_batch(state, feed.batch(step), with_r1)
    update = in_turn if p.is_demo else UPDATE_FUNCTIONS[p.updates]
    update(state, parts)
    state.update_ema(ema_weight(p, step))
    state.stats.append(torch.stack([part.stats() for part in parts]).mean(dim=0))
    state.step += 1


# -- A part of a batch -----------------------------------------------------------------------------------


def split_batch(state: TrainState, batch: Batch, with_r1: bool) -> list[BatchPart]:
    """The parts of a batch, each with networks that share the weights."""
    parts = []
    small_batches = batch.split(state.part_count)
    for networks, small_batch in zip(state.part_networks, small_batches, strict=True):
        small_batch.real.requires_grad_(with_r1)  # R1 is a gradient at the reals
        parts.append(BatchPart(*networks, state.hardware, state.params, small_batch, with_r1))
    return parts


@dataclass
class BatchPart:
    """A part of a batch, which one thread works on. Its networks share their weights with those of other
    parts, and have batch-norm statistics of their own."""

    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork
    hardware: Hardware
    params: TrainParams
    batch: Batch
    with_r1: bool
    # The logits in this step's losses, float32 [B], without a graph: kept by the losses below for `stats`.
    real_logits: Tensor = field(init=False)
    fake_logits: Tensor = field(init=False)
    fake_logits_for_generator: Tensor = field(init=False)

    @cached_property
    def fakes(self) -> Tensor:
        """Float32 [B, C, H, W] in [-1, 1], with the generator's graph behind them. Drawn once a step."""
        with self.hardware.autocast():
            fakes: Tensor = self.generator(self.batch.latents, self.batch.labels)
        return fakes.float()

    @property
    def shifted_fakes(self) -> Tensor:
        """The fakes as the discriminator gets them: shifted, where `train.max_shift` says so."""
        return shift(self.fakes, self.batch.fake_shifts)

    def discriminate(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [B] and class logits [B, classes], or None where the network has none."""
        with self.hardware.autocast():
            logits: tuple[Tensor, Tensor | None] = self.discriminator(images, self.batch.labels)
        return logits

    @property
    def objective(self) -> Objective:
        return LEAST_SQUARES if self.params.is_demo else LOGISTIC

    @property
    def projection_discriminator(self) -> ProjectionDiscriminator:
        """The discriminator, where fakes and reals share a batch: not that of the demo."""
        assert isinstance(self.discriminator, ProjectionDiscriminator)
        return self.discriminator

    def stats(self) -> Tensor:
        """The values of `state.STATS`, float32 [6]. The losses are without class losses and R1, which would
        hide who is ahead."""
        objective = self.objective
        real, fake = self.real_logits, self.fake_logits
        values = (
            objective.fake_loss(fake) + objective.real_loss(real),
            objective.real_loss(self.fake_logits_for_generator),
            real.mean(),
            fake.mean(),
            (real > objective.threshold).float().mean(),
            (fake <= objective.threshold).float().mean(),
        )
        return torch.stack(values)


# -- Three ways to update both networks ------------------------------------------------------------------


def one_pass(state: TrainState, parts: list[BatchPart]) -> None:
    """Both networks from one pass of fakes and reals through the discriminator (Shen et al.,
    arXiv:2103.00430).

    The gradient of the generator's loss at a fake is that of the discriminator's loss times the ratio of the
    two losses' slopes (`slope_ratio`). So the fakes need no second pass, forward or backward.
    """
    discriminator_weights = optimizer_weights(state.discriminator_optimizer)
    generator_weights = optimizer_weights(state.generator_optimizer)

    def part_gradients(part: BatchPart) -> tuple[Gradients, Gradients]:
        # The discriminator's loss, back to its weights and to the maps of its first convolution.
        maps = first_maps(part)
        loss = discriminator_loss(part, maps)
        *discriminator_gradients, maps_gradient = torch.autograd.grad(
            loss / len(parts), [*discriminator_weights, maps]
        )
        # At the maps of the fakes: the gradient of the generator's loss.
        ratio = slope_ratio(part.fake_logits)
        maps_gradient = maps_gradient.chunk(2)[0] * ratio[:, None, None, None]
        # From the maps back to the fakes, by a faster kernel than autograd's; back through their shift; and
        # from the fakes to the generator's weights.
        with part.hardware.autocast():
            fakes_gradient = part.projection_discriminator.gradient_at_images(maps_gradient)
        if part.batch.fake_shifts is not None:
            fakes_gradient = shift(fakes_gradient, -part.batch.fake_shifts)
        generator_gradients = torch.autograd.grad(part.fakes, generator_weights, fakes_gradient)
        part.fake_logits_for_generator = part.fake_logits
        return tuple(discriminator_gradients), generator_gradients

    gradients = zip(*state.map_parts(part_gradients, parts), strict=True)
    discriminator_gradients, generator_gradients = gradients
    step_optimizer(state, state.discriminator_optimizer, discriminator_gradients)
    step_optimizer(state, state.generator_optimizer, generator_gradients)


def two_passes(state: TrainState, parts: list[BatchPart]) -> None:
    """The discriminator on fakes and reals together, then the generator against the updated discriminator."""
    update_network(state, state.discriminator_optimizer, discriminator_loss, parts)
    update_network(state, state.generator_optimizer, generator_loss, parts)


def in_turn(state: TrainState, parts: list[BatchPart]) -> None:
    """The demo's three updates, of the discriminator on fakes, then on reals, then of the generator: batch
    norm never sees fakes and reals together."""
    update_network(state, state.discriminator_optimizer, discriminator_loss_on_fakes, parts)
    update_network(state, state.discriminator_optimizer, discriminator_loss_on_reals, parts)
    update_network(state, state.generator_optimizer, generator_loss, parts)


# By the value of `train.updates`.
UPDATE_FUNCTIONS: dict[str, Callable[[TrainState, list[BatchPart]], None]] = {
    "one_pass": one_pass,
    "two_passes": two_passes,
}


def update_network(
    state: TrainState,
    optimizer: Optimizer,
    loss: Callable[[BatchPart], Tensor],
    parts: list[BatchPart],
) -> None:
    """One step of an optimizer down the mean of a loss over all parts, each on a thread of its own."""
    weights = optimizer_weights(optimizer)

    def part_gradients(part: BatchPart) -> Gradients:
        return torch.autograd.grad(loss(part) / len(parts), weights)

    step_optimizer(state, optimizer, state.map_parts(part_gradients, parts))


def step_optimizer(
    state: TrainState, optimizer: Optimizer, part_gradients: Iterable[Gradients]
) -> None:
    """One step of the optimizer, on the sum of the gradients of all parts."""
    weights = optimizer_weights(optimizer)
    set_gradients(weights, part_gradients)
    if state.params.is_demo:
        nn.utils.clip_grad_value_(weights, DEMO_GRADIENT_CLIP)
    optimizer.step()


# -- The losses of a part, scalars; they keep the logits for `BatchPart.stats` ------------------------------


def first_maps(part: BatchPart) -> Tensor:
    """The maps of the discriminator's first convolution, for a batch of fakes and then reals:
    [2B, features, ⌊H/2⌋, ⌊W/2⌋]."""
    with part.hardware.autocast():
        fakes_and_reals = torch.cat([part.shifted_fakes.detach(), part.batch.real])
        return part.projection_discriminator.first_maps(fakes_and_reals)


def discriminator_loss(part: BatchPart, maps: Tensor | None = None) -> Tensor:
    """The discriminator's loss on fakes and reals in one batch, from the `first_maps` if they are there: the
    sum of the two losses below, and faster."""
    maps = first_maps(part) if maps is None else maps
    with part.hardware.autocast():
        labels = part.batch.labels.repeat(2)
        logits, class_logits = part.projection_discriminator.from_first_maps(maps, labels)
    fake_logits, real_logits = logits.chunk(2)
    _, real_class_logits = class_logits.chunk(2)
    return fake_terms(part, fake_logits) + real_terms(part, real_logits, real_class_logits)


def discriminator_loss_on_fakes(part: BatchPart) -> Tensor:
    fake_logits, _ = part.discriminate(part.shifted_fakes.detach())
    return fake_terms(part, fake_logits)


def discriminator_loss_on_reals(part: BatchPart) -> Tensor:
    return real_terms(part, *part.discriminate(part.batch.real))


def generator_loss(part: BatchPart) -> Tensor:
    """The generator's loss: its fakes should be taken for real, and show their class (arXiv:1610.09585)."""
    fake_logits, class_logits = part.discriminate(part.shifted_fakes)
    part.fake_logits_for_generator = fake_logits.detach()
    loss = part.objective.real_loss(fake_logits)
    return loss + class_terms(part, class_logits, part.params.auxiliary_generator)


def fake_terms(part: BatchPart, fake_logits: Tensor) -> Tensor:
    """The terms of the discriminator's loss on fakes."""
    part.fake_logits = fake_logits.detach()
    return part.objective.fake_loss(fake_logits)


def real_terms(part: BatchPart, real_logits: Tensor, class_logits: Tensor | None) -> Tensor:
    """The terms of the discriminator's loss on reals: the adversarial loss; the class loss of an auxiliary
    classifier (Odena et al., arXiv:1610.09585); and in one step of R1_EVERY, with so many times its weight,
    R1: lazy regularization (Karras et al., arXiv:1912.04958, section 3.1)."""
    p = part.params
    part.real_logits = real_logits.detach()
    loss = part.objective.real_loss(real_logits)
    loss = loss + class_terms(part, class_logits, p.auxiliary_discriminator)
    if part.with_r1:
        loss = loss + p.r1_gamma * R1_EVERY * r1_penalty(real_logits, part.batch.real)
    return loss


def class_terms(part: BatchPart, class_logits: Tensor | None, weight: float) -> Tensor | float:
    """The weighted class loss; 0.0 without one, as in the demo."""
    if class_logits is None or not weight:
        return 0.0
    return weight * cross_entropy(class_logits, part.batch.labels)


# -- The formulas; logits are float32 [N] ----------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """The adversarial loss. `real_loss` is low where images are taken for real, as the discriminator wants of
    reals, the generator of fakes; `fake_loss` where they are taken for fake. An image with a logit above the
    `threshold` is taken for real."""

    real_loss: Callable[[Tensor], Tensor]
    fake_loss: Callable[[Tensor], Tensor]
    threshold: float


# The non-saturating loss of Goodfellow et al. (arXiv:1406.2661, section 3).
LOGISTIC = Objective(
    real_loss=lambda logits: softplus(-logits).mean(),
    fake_loss=lambda logits: softplus(logits).mean(),
    threshold=0.0,
)
# The demo's squared error: that of Mao et al. (arXiv:1611.04076, eq. 9 with a=0, b=c=1).
LEAST_SQUARES = Objective(
    real_loss=lambda logits: 0.5 * (logits - 1).square().mean(),
    fake_loss=lambda logits: 0.5 * logits.square().mean(),
    threshold=0.5,
)


def slope_ratio(fake_logits: Tensor) -> Tensor:
    """The slope of the generator's logistic loss over that of the discriminator's at each fake's logit, [N].

    Without batch norm a fake's logit f depends on no other image. So by the chain rule the gradients of both
    losses at this fake are ∂f/∂fake times their slopes at f, and the ratio turns one into the other. It is
    -σ(-f) / σ(f) = -exp(-f), σ the sigmoid, and held finite: exp(89) is ∞ in float32, and ∞·0 would be NaN.
    """
    return -torch.exp(-fake_logits.clamp(min=-60.0))


def r1_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """½·mean‖∂real_logits/∂images‖² (Mescheder et al., arXiv:1801.04406, eq. 9, without γ).

    `images` [N, C, H, W] must require grad and have made `real_logits`; each image's logit may depend on
    that image alone (no batch norm), so the gradient of the sum holds each image's own gradient.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()
