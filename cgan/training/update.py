"""One update of both networks, in the order in which it happens: a batch in parts, the losses, the
gradients, both optimizers' steps, the average. Nothing here waits for the device.

`real_logits` and `fake_logits` are what the discriminator answers, float32 [N]; losses are scalars.

- The objective `logistic`: the non-saturating loss of Goodfellow et al. (arXiv:1406.2661, section 3).
- `least_squares`: Mao et al. (arXiv:1611.04076, eq. 9 with a=0, b=c=1); the demo's squared error.
- One pass for both networks: Shen et al. (arXiv:2103.00430).
- R1: Mescheder et al. (arXiv:1801.04406, eq. 9), added once in `r1_every` steps (lazy regularization, Karras
  et al., arXiv:1912.04958).
- Class losses: an auxiliary classifier (Odena et al., arXiv:1610.09585) beside the projection of the class
  (Miyato and Koyama, arXiv:1802.05637), where their weights are above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from cgan.model.hardware import Hardware, set_gradients
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork, ProjectionDiscriminator
from cgan.params.sections import TrainParams
from cgan.training.batches import Batch, Feed, ema_weight, learning_rate, r1_is_due, shift
from cgan.training.state import Optimizer, TrainState, weights_of

Gradients = tuple[Tensor, ...]


def train_step(state: TrainState, feed: Feed) -> None:
    """The step that comes next: one update of each network, the average, the record."""
    p, step = state.params, state.step
    state.set_learning_rate(learning_rate(p, step))
    parts = split_batch(state, feed.batch(step), r1_is_due(p, step))
    UPDATE_FUNCTIONS[p.updates](state, parts)
    state.update_ema(ema_weight(p, step))
    state.stats[step % p.log_every] = torch.stack([part.stats() for part in parts]).mean(dim=0)
    state.step += 1


def split_batch(state: TrainState, batch: Batch, penalise: bool) -> list[BatchPart]:
    """A batch → its parts, each with networks that share the weights."""
    pieces = zip(state.networks, batch.split(state.parts), strict=True)
    return [
        BatchPart(*pair, state.hardware, state.params, penalise, piece) for pair, piece in pieces
    ]


# -- Three ways to update: each takes the gradients of every part, on a thread of its own ----------------


def one_pass(state: TrainState, parts: list[BatchPart]) -> None:
    """Both networks from one pass of fakes and reals through the discriminator.

    A fake's gradient for one network's loss is a multiple of its gradient for the other's (`slope_ratio`).
    So the discriminator's backward pass goes on to its first feature maps. There the fakes' half is turned
    into the gradient of the generator's loss, which goes on to the images and through the generator alone.
    """
    discriminator_weights = weights_of(state.discriminator_optimizer)
    generator_weights = weights_of(state.generator_optimizer)

    def gradients(part: BatchPart) -> tuple[Gradients, Gradients]:
        loss = loss_on_both(part)
        part.generator_logits = part.fake_logits
        *for_discriminator, gradient_at_maps = torch.autograd.grad(
            loss / state.parts, [*discriminator_weights, part.feature_maps]
        )
        slopes = slope_ratio(state.params.objective, part.fake_logits)
        gradient_at_maps = gradient_at_maps.chunk(2)[0] * slopes[:, None, None, None]
        with part.hardware.autocast():
            gradient_at_fakes = part.projection.gradient_at_images(gradient_at_maps)
        if part.batch.fake_shifts is not None:
            gradient_at_fakes = shift(gradient_at_fakes, -part.batch.fake_shifts)
        return tuple(for_discriminator), torch.autograd.grad(
            part.fakes, generator_weights, gradient_at_fakes
        )

    for_discriminator, for_generator = zip(*state.map_parts(gradients, parts), strict=True)
    step_optimizer(state, state.discriminator_optimizer, for_discriminator)
    step_optimizer(state, state.generator_optimizer, for_generator)


def update_for_each_loss(
    losses: tuple[Callable[[BatchPart], Tensor], ...], state: TrainState, parts: list[BatchPart]
) -> None:
    """An update for each loss in turn. The generator's comes last, so it sees the updated discriminator."""
    for loss in losses:
        of_generator = loss is loss_of_generator
        optimizer = state.generator_optimizer if of_generator else state.discriminator_optimizer
        gradients = partial(gradients_of, loss, weights_of(optimizer), len(parts))
        step_optimizer(state, optimizer, state.map_parts(gradients, parts))


def gradients_of(
    loss: Callable[[BatchPart], Tensor], weights: list[Tensor], count: int, part: BatchPart
) -> Gradients:
    """The gradients of one of `count` parts: those of its share of the mean loss."""
    return torch.autograd.grad(loss(part) / count, weights)


def step_optimizer(state: TrainState, optimizer: Optimizer, by_part: Iterable[Gradients]) -> None:
    """One step of the optimizer, on the sum of the gradients of all parts."""
    weights = weights_of(optimizer)
    set_gradients(weights, by_part)
    if state.params.gradient_clip:
        nn.utils.clip_grad_value_(weights, state.params.gradient_clip)
    optimizer.step()


# -- The losses of a part --------------------------------------------------------------------------------


def loss_on_both(part: BatchPart) -> Tensor:
    """The discriminator's loss, on fakes and reals in one batch with the fakes first.

    To a discriminator without batch norm it is the same as two passes, and faster.
    """
    images = part.batch.real.requires_grad_(part.penalise)
    with part.hardware.autocast():
        fakes_and_reals = torch.cat([part.shifted_fakes().detach(), images])
        part.feature_maps = part.projection.first_maps(fakes_and_reals)
        labels = part.batch.labels.repeat(2)
        logits, class_logits = part.projection.from_first_maps(part.feature_maps, labels)
    fake_logits, real_logits = logits.chunk(2)
    part.fake_logits = fake_logits.detach()
    on_fakes = fake_loss(part.params.objective, fake_logits)
    return on_fakes + real_terms(part, images, real_logits, class_logits.chunk(2)[1])


def loss_on_fakes(part: BatchPart) -> Tensor:
    """The discriminator's loss, on fakes alone."""
    fake_logits, _ = part.discriminate(part.shifted_fakes().detach())
    part.fake_logits = fake_logits.detach()
    return fake_loss(part.params.objective, fake_logits)


def loss_on_reals(part: BatchPart) -> Tensor:
    """The discriminator's loss, on reals alone."""
    images = part.batch.real.requires_grad_(part.penalise)
    return real_terms(part, images, *part.discriminate(images))


def real_terms(
    part: BatchPart, images: Tensor, real_logits: Tensor, class_logits: Tensor | None
) -> Tensor:
    """Reals should look real and show their class; R1, where it is due, keeps the slope at them small."""
    p = part.params
    part.real_logits = real_logits.detach()
    loss = real_loss(p.objective, real_logits)
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.batch.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real_logits, images)
    return loss


def loss_of_generator(part: BatchPart) -> Tensor:
    """The generator's loss, through the discriminator as it is now."""
    p = part.params
    fake_logits, class_logits = part.discriminate(part.shifted_fakes())
    part.generator_logits = fake_logits.detach()
    loss = generator_loss(p.objective, fake_logits)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.batch.labels)
    return loss


# By the value of `train.updates`.
UPDATE_FUNCTIONS: dict[str, Callable[[TrainState, list[BatchPart]], None]] = {
    "one_pass": one_pass,
    "two_passes": partial(update_for_each_loss, (loss_on_both, loss_of_generator)),
    # The demo's, which works with every network: batch norm never sees fakes and reals together.
    "in_turn": partial(update_for_each_loss, (loss_on_fakes, loss_on_reals, loss_of_generator)),
}


# -- The formulas ----------------------------------------------------------------------------------------


def real_loss(objective: str, logits: Tensor) -> Tensor:
    """Low where the discriminator takes these images for real."""
    if objective == "logistic":
        return softplus(-logits).mean()
    return 0.5 * (logits - 1).square().mean()


def fake_loss(objective: str, logits: Tensor) -> Tensor:
    """Low where the discriminator takes these images for fake."""
    if objective == "logistic":
        return softplus(logits).mean()
    return 0.5 * logits.square().mean()


generator_loss = real_loss  # the generator wants its fakes taken for real


def slope_ratio(objective: str, fake_logits: Tensor) -> Tensor:
    """Slope of the generator's loss over slope of the discriminator's, at each fake's logit [N].

    A fake's gradient for the discriminator, times this ratio, is its gradient for the generator, because
    its logit f depends on no other image. With the slopes of the losses below the ratio is
    -σ(-f) / σ(f) = -exp(-f) for the logistic pair, σ the sigmoid, and (f-1) / f for least squares.

    Where the discriminator's slope vanishes, the ratio is held finite: such a fake then teaches nothing,
    where ∞·0 would give NaN.
    """
    if objective == "logistic":
        return -torch.exp(-fake_logits.clamp(min=-60.0))  # exp(89) is ∞ in float32
    slope = torch.where(fake_logits.abs() < 1e-6, torch.full_like(fake_logits, 1e-6), fake_logits)
    return (fake_logits - 1) / slope


def r1_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """½·mean‖∂real_logits/∂images‖². Times `r1_gamma` · `r1_every` it is the lazy R1 term.

    `images` [N, C, H, W] must require grad and have made `real_logits`; each image's logit may depend on
    that image alone (no batch norm), so the gradient of the sum holds each image's own gradient.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


# -- A part of a batch -----------------------------------------------------------------------------------


@dataclass
class BatchPart:
    """A part of a batch, which one thread works on, and what came of it in this step.

    Its networks share the weights with those of other parts, and have batch-norm statistics of their own.
    """

    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork
    hardware: Hardware
    params: TrainParams
    penalise: bool  # whether R1 is due in this step
    batch: Batch
    # What the discriminator's first convolution makes of fakes and reals, [2B, features, ⌊H/2⌋, ⌊W/2⌋].
    feature_maps: Tensor = field(init=False)
    # The discriminator's answers in this step, float32 [B] each, without a graph. `generator_logits` are of
    # fakes, too, as the generator's loss saw them: after the discriminator's update, except in one pass.
    real_logits: Tensor = field(init=False)
    fake_logits: Tensor = field(init=False)
    generator_logits: Tensor = field(init=False)

    @property
    def projection(self) -> ProjectionDiscriminator:
        """The discriminator, for updates that TrainParams allows with this kind only."""
        assert isinstance(self.discriminator, ProjectionDiscriminator)
        return self.discriminator

    @cached_property
    def fakes(self) -> Tensor:
        """[B, C, H, W] float32 in [-1, 1], with the generator's graph behind them. Drawn once a step."""
        with self.hardware.autocast():
            fakes: Tensor = self.generator(self.batch.latents, self.batch.labels)
        return fakes.float()

    def shifted_fakes(self) -> Tensor:
        """The fakes as the discriminator gets them: shifted, where `train.max_shift` says so."""
        return shift(self.fakes, self.batch.fake_shifts)

    def discriminate(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [B] and class logits [B, classes], or None where the network has none."""
        with self.hardware.autocast():
            logits: tuple[Tensor, Tensor | None] = self.discriminator(images, self.batch.labels)
        return logits

    def stats(self) -> Tensor:
        """The values of `state.STATS`, float32 [6]. The losses are without class losses and R1, which would
        hide who is ahead."""
        objective, real_logits, fake_logits = (
            self.params.objective,
            self.real_logits,
            self.fake_logits,
        )
        threshold = 0.0 if objective == "logistic" else 0.5  # above it: taken for real
        values = (
            fake_loss(objective, fake_logits) + real_loss(objective, real_logits),
            generator_loss(objective, self.generator_logits),
            real_logits.mean(),
            fake_logits.mean(),
            (real_logits > threshold).float().mean(),
            (fake_logits <= threshold).float().mean(),
        )
        return torch.stack(values)
