"""One step, in the order of time: a batch comes in parts, both networks are updated, the average follows.

There are three ways to update the networks. Each takes the gradients of every part, on a thread of its own,
and ends in `apply`. Nothing here waits for the device.
"""

from collections.abc import Callable, Iterable
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
from cgan.training.state import Optimizer, Part, TrainState, weights_of

Gradients = tuple[Tensor, ...]
Loss = Callable[[TrainParams, Part], Tensor]


def train_step(state: TrainState, feed: Feed) -> None:
    """The step that comes next: one update of each network, the average, the record."""
    p, step = state.params, state.step
    state.set_learning_rate(learning_rate(p, step))
    parts = state.split(feed.batch(step), penalised(p, step))
    UPDATES[p.updates](state, parts)
    state.update_average(average_weight(p, step))
    stats = torch.stack([part.stats(p.objective) for part in parts])
    state.stats[step % p.log_every] = stats.mean(dim=0)
    state.step += 1


def update(state: TrainState, loss: Loss, parts: list[Part]) -> None:
    """One update of the network whose loss it is, on the mean of the parts' losses."""
    of_generator = loss is loss_of_generator
    optimizer = state.generator_optimizer if of_generator else state.discriminator_optimizer

    def gradients(part: Part) -> Gradients:
        value = loss(state.params, part) / len(parts)
        return torch.autograd.grad(value, weights_of(optimizer))

    apply(state, optimizer, state.map(gradients, parts))


def apply(state: TrainState, optimizer: Optimizer, by_part: Iterable[Gradients]) -> None:
    """One update on the sum of the gradients of all parts."""
    weights = weights_of(optimizer)
    set_gradients(weights, by_part)
    if state.params.gradient_clip:
        nn.utils.clip_grad_value_(weights, state.params.gradient_clip)
    optimizer.step()


# -- The losses of a part --------------------------------------------------------------------------------


def loss_on_fakes(p: TrainParams, part: Part) -> Tensor:
    """The discriminator's on fakes alone."""
    fake, _ = part.score(part.as_seen().detach())
    part.said_of_fake = fake.detach()
    return discriminator_fake_loss(p.objective, fake)


def loss_on_reals(p: TrainParams, part: Part) -> Tensor:
    """The discriminator's on reals alone."""
    images = part.batch.real.requires_grad_(part.penalise)
    return loss_of_reals(p, part, images, *part.score(images))


def loss_of_reals(
    p: TrainParams, part: Part, images: Tensor, real: Tensor, class_logits: Tensor | None
) -> Tensor:
    """Reals should look real and show their class; R1, if penalised, keeps the slope at them small."""
    part.said_of_real = real.detach()
    loss = discriminator_real_loss(p.objective, real)
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.batch.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, images)
    return loss


def loss_on_both(p: TrainParams, part: Part) -> Tensor:
    """The discriminator's on fakes and reals together, in one batch with the fakes first.

    To a discriminator without batch norm it is the same as two passes, and faster.
    """
    images = part.batch.real.requires_grad_(part.penalise)
    with part.hardware.autocast():
        part.maps = part.projection.first_maps(torch.cat([part.as_seen().detach(), images]))
        labels = part.batch.labels.repeat(2)
        scores, class_logits = part.projection.from_first_maps(part.maps, labels)
    fake, real = scores.chunk(2)
    part.said_of_fake = fake.detach()
    on_fakes = discriminator_fake_loss(p.objective, fake)
    return on_fakes + loss_of_reals(p, part, images, real, class_logits.chunk(2)[1])


def loss_of_generator(p: TrainParams, part: Part) -> Tensor:
    """The generator's, through the discriminator as it is now."""
    fake, class_logits = part.score(part.as_seen())
    part.said_to_generator = fake.detach()
    loss = generator_loss(p.objective, fake)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.batch.labels)
    return loss


def one_pass(state: TrainState, parts: list[Part]) -> None:
    """One update of each network, from one pass of fakes and reals through the discriminator.

    A fake's gradient for one network's loss is a multiple of its gradient for the other's. So the
    discriminator's backward pass goes on to its first maps. There the fakes' half is turned into the
    generator's gradient, which goes on through the generator alone.
    """
    of_discriminator = weights_of(state.discriminator_optimizer)
    of_generator = weights_of(state.generator_optimizer)

    def gradients(part: Part) -> tuple[Gradients, Gradients]:
        loss = loss_on_both(state.params, part)
        part.said_to_generator = part.said_of_fake
        *for_discriminator, at_maps = torch.autograd.grad(
            loss / state.parts, [*of_discriminator, part.maps]
        )
        slopes = slope_ratio(state.params.objective, part.said_of_fake)
        at_maps = at_maps.chunk(2)[0] * slopes[:, None, None, None]
        with part.hardware.autocast():
            at_fakes = part.projection.gradient_at_images(at_maps)
        if part.batch.fake_shifts is not None:
            at_fakes = shift(at_fakes, -part.batch.fake_shifts)
        return tuple(for_discriminator), torch.autograd.grad(part.fakes, of_generator, at_fakes)

    for_discriminator, for_generator = zip(*state.map(gradients, parts), strict=True)
    apply(state, state.discriminator_optimizer, for_discriminator)
    apply(state, state.generator_optimizer, for_generator)


def one_by_one(losses: tuple[Loss, ...], state: TrainState, parts: list[Part]) -> None:
    """An update for each loss; that of the generator is through the updated discriminator."""
    for loss in losses:
        update(state, loss, parts)


UPDATES: dict[str, Callable[[TrainState, list[Part]], None]] = {
    "one_pass": one_pass,
    "two_passes": partial(one_by_one, (loss_on_both, loss_of_generator)),
    # The demo's, which work with every network: batch norm never sees fakes and reals together.
    "in_turn": partial(one_by_one, (loss_on_fakes, loss_on_reals, loss_of_generator)),
}
