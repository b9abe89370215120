"""One step, in the order of time: a batch comes in parts, both networks are updated, the average follows.

There are three ways to update the networks. Each takes the gradients of every part, on a thread of its own,
and ends in `apply`. A network is updated on the mean of the parts' losses. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.model.hardware import set_gradients
from cgan.params.sections import TrainParams
from cgan.training.batches import Feed, average_weight, learning_rate, penalised, shift
from cgan.training.losses import (
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    r1_penalty,
    slope_ratio,
)
from cgan.training.state import Logits, Optimizer, Part, TrainState, weights_of

Gradients = tuple[Tensor, ...]
Loss = Callable[[TrainParams, Part], tuple[Tensor, Tensor]]
"""Of a part, and the logits behind it."""


def train_step(state: TrainState, feed: Feed) -> None:
    """The step that comes next: one update of each network, the average, the record."""
    p, step = state.params, state.step
    state.set_learning_rate(learning_rate(p, step))
    parts = state.split(feed.batch(step), penalised(p, step))
    logits = UPDATES[p.updates](state, parts)
    state.update_average(average_weight(p, step))
    state.write_stats(step % p.log_every, logits)
    state.step += 1


def one_pass(state: TrainState, parts: list[Part]) -> list[Logits]:
    """One update of each network, from one pass of fakes and reals through the discriminator."""
    by_part = list(state.map(partial(gradients_of_both, state), parts))
    apply(state, state.discriminator_optimizer, [gradients for gradients, _, _ in by_part])
    apply(state, state.generator_optimizer, [gradients for _, gradients, _ in by_part])
    return [logits for _, _, logits in by_part]


def two_passes(state: TrainState, parts: list[Part]) -> list[Logits]:
    """The discriminator on fakes and reals together, then the generator through the updated one."""
    gradients, scores = gradients_of(state, state.discriminator_optimizer, loss_on_both, parts)
    apply(state, state.discriminator_optimizer, gradients)
    gradients, again = gradients_of(state, state.generator_optimizer, loss_of_generator, parts)
    apply(state, state.generator_optimizer, gradients)
    fake, real = zip(*(both.chunk(2) for both in scores), strict=True)
    return list(map(Logits, real, fake, again))


def in_turn(state: TrainState, parts: list[Part]) -> list[Logits]:
    """The demo's three updates: the discriminator on fakes, then on reals, then the generator.

    They work with every network: batch norm never sees fakes and reals together.
    """
    gradients, fake = gradients_of(state, state.discriminator_optimizer, loss_on_fakes, parts)
    apply(state, state.discriminator_optimizer, gradients)
    gradients, real = gradients_of(state, state.discriminator_optimizer, loss_on_reals, parts)
    apply(state, state.discriminator_optimizer, gradients)
    gradients, again = gradients_of(state, state.generator_optimizer, loss_of_generator, parts)
    apply(state, state.generator_optimizer, gradients)
    return list(map(Logits, real, fake, again))


UPDATES = {"one_pass": one_pass, "two_passes": two_passes, "in_turn": in_turn}


def apply(state: TrainState, optimizer: Optimizer, by_part: list[Gradients]) -> None:
    """One update on the sum of the gradients of all parts."""
    weights = weights_of(optimizer)
    set_gradients(weights, by_part)
    if state.params.gradient_clip:
        nn.utils.clip_grad_value_(weights, state.params.gradient_clip)
    optimizer.step()


# -- The losses of a part --------------------------------------------------------------------------------


def loss_on_fakes(p: TrainParams, part: Part) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on fakes alone, and their logits."""
    fake, _ = part.score(part.as_seen(part.fakes.detach()))
    return discriminator_fake_loss(p.objective, fake), fake


def loss_on_reals(p: TrainParams, part: Part) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on reals alone, and their logits."""
    images = part.real.detach().requires_grad_(part.penalise)
    real, class_logits = part.score(images)
    return loss_of_reals(p, part, images, real, class_logits), real


def loss_of_reals(
    p: TrainParams, part: Part, images: Tensor, real: Tensor, class_logits: Tensor | None
) -> Tensor:
    """Reals should look real and show their class; R1, if penalised, keeps the slope at them small."""
    loss = discriminator_real_loss(p.objective, real)
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, images)
    return loss


def loss_on_both(p: TrainParams, part: Part) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on fakes and reals together, and the logits of both, fakes first."""
    loss, scores, _ = pass_of_both(p, part)
    return loss, scores


def pass_of_both(p: TrainParams, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of fakes and reals in one batch → (loss, logits [2N], first maps of both); fakes first.

    To a discriminator without batch norm it is the same as two passes, and faster.
    """
    images = part.real.detach().requires_grad_(part.penalise)
    with part.hardware.autocast():
        maps = part.projection.first_maps(torch.cat([part.as_seen(part.fakes.detach()), images]))
        scores, class_logits = part.projection.from_first_maps(maps, part.labels.repeat(2))
    fake, real = scores.chunk(2)
    on_fakes = discriminator_fake_loss(p.objective, fake)
    on_reals = loss_of_reals(p, part, images, real, class_logits.chunk(2)[1])
    return on_fakes + on_reals, scores, maps


def loss_of_generator(p: TrainParams, part: Part) -> tuple[Tensor, Tensor]:
    """The generator's loss through the discriminator as it is now, and the logits of its fakes."""
    fake, class_logits = part.score(part.as_seen(part.fakes))
    loss = generator_loss(p.objective, fake)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.labels)
    return loss, fake


# -- Their gradients ---------------------------------------------------------------------------------------


def gradients_of(
    state: TrainState, optimizer: Optimizer, loss: Loss, parts: list[Part]
) -> tuple[list[Gradients], list[Tensor]]:
    """The gradients of every part for the optimizer's weights, and the logits behind them."""

    def of_part(part: Part) -> tuple[Gradients, Tensor]:
        value, logits = loss(state.params, part)
        return torch.autograd.grad(value / len(parts), weights_of(optimizer)), logits.detach()

    by_part = list(state.map(of_part, parts))
    return [gradients for gradients, _ in by_part], [logits for _, logits in by_part]


def gradients_of_both(state: TrainState, part: Part) -> tuple[Gradients, Gradients, Logits]:
    """→ (the discriminator's gradients, the generator's, the logits) from one pass.

    A fake's gradient for one network's loss is a multiple of its gradient for the other's. So the
    discriminator's backward pass goes on to its first maps. There the fakes' half is turned into the
    generator's gradient, which goes on through the generator alone.
    """
    loss, scores, maps = pass_of_both(state.params, part)
    fake, real = scores.detach().chunk(2)
    *for_discriminator, at_maps = torch.autograd.grad(
        loss / state.parts, [*weights_of(state.discriminator_optimizer), maps]
    )
    slopes = slope_ratio(state.params.objective, fake)
    at_maps = at_maps.chunk(2)[0] * slopes[:, None, None, None]
    with part.hardware.autocast():
        at_fakes = part.projection.gradient_at_images(at_maps)
    if part.fake_shifts is not None:
        at_fakes = shift(at_fakes, -part.fake_shifts)
    of_generator = weights_of(state.generator_optimizer)
    for_generator = torch.autograd.grad(part.fakes, of_generator, at_fakes)
    return tuple(for_discriminator), for_generator, Logits(real, fake, fake)
