"""What one update is: three ways to train both networks on a batch. Each ends in `apply`.

A batch comes in parts, each on its own thread. A network is updated on the mean of the parts' losses.
Nothing here waits for the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.model.hardware import set_gradients
from cgan.training.batches import Feed, shift
from cgan.training.losses import (
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    r1_penalty,
    slope_ratio,
)
from cgan.training.state import Logits, Optimizer, Part, TrainState, weights_of

Gradients = tuple[Tensor, ...]


def one_pass(state: TrainState, parts: list[Part]) -> list[Logits]:
    """One update of each network, from one pass of fakes and reals through the discriminator."""
    found = on_each(state, gradients_of_both, parts)
    apply(state, state.discriminator_optimizer, [gradients for gradients, _, _ in found])
    apply(state, state.generator_optimizer, [gradients for _, gradients, _ in found])
    return [logits for _, _, logits in found]


def two_passes(state: TrainState, parts: list[Part]) -> list[Logits]:
    """The discriminator on fakes and reals together, then the generator through the updated one."""
    fakes = on_each(state, draw_fakes, parts)
    scores = update(state, state.discriminator_optimizer, loss_on_both, parts, fakes)
    again = update(state, state.generator_optimizer, loss_of_generator, parts, fakes)
    fake, real = zip(*(both.chunk(2) for both in scores), strict=True)
    return list(map(Logits, real, fake, again))


def in_turn(state: TrainState, parts: list[Part]) -> list[Logits]:
    """The demo's three updates: the discriminator on fakes, then on reals, then the generator.

    They work with every network: batch norm never sees fakes and reals together.
    """
    fakes = on_each(state, draw_fakes, parts)
    fake = update(state, state.discriminator_optimizer, loss_on_fakes, parts, fakes)
    real = update(state, state.discriminator_optimizer, loss_on_reals, parts)
    again = update(state, state.generator_optimizer, loss_of_generator, parts, fakes)
    return list(map(Logits, real, fake, again))


UPDATES = {"one_pass": one_pass, "two_passes": two_passes, "in_turn": in_turn}


def train_step(state: TrainState, feed: Feed, penalise: bool) -> None:
    """One step on the batch that the feed stands at: one update of each network, average, record."""
    batch = feed.batch()
    state.set_learning_rate(batch.learning_rate)
    logits = UPDATES[state.params.updates](state, state.split(batch, penalise))
    state.update_average(batch.average_weight)
    state.write_stats(feed.position, logits)


def update(
    state: TrainState,
    optimizer: Optimizer,
    loss: Callable[..., tuple[Tensor, Tensor]],
    *by_part: Sequence[Any],
) -> list[Tensor]:
    """One update on the mean of the parts' losses → the logits behind each, without a graph.

    `loss` is called with the state and one of each of `by_part`, and returns (loss, logits). Only the
    optimizer's weights get gradients.
    """

    def gradients(state: TrainState, *part: Any) -> tuple[Gradients, Tensor]:
        value, logits = loss(state, *part)
        return torch.autograd.grad(value / state.parts, weights_of(optimizer)), logits.detach()

    found = on_each(state, gradients, *by_part)
    apply(state, optimizer, [of_part for of_part, _ in found])
    return [logits for _, logits in found]


def apply(state: TrainState, optimizer: Optimizer, by_part: list[Gradients]) -> None:
    """One update on the sum of the gradients of all parts."""
    weights = weights_of(optimizer)
    set_gradients(weights, by_part)
    if state.params.gradient_clip:
        nn.utils.clip_grad_value_(weights, state.params.gradient_clip)
    optimizer.step()


def on_each(state: TrainState, function: Callable[..., Any], *by_part: Sequence[Any]) -> list[Any]:
    """What `function` returns for the state and each part, every part on its own thread."""
    return list(state.map(functools.partial(function, state), *by_part))


# -- What a part contributes ------------------------------------------------------------------------


def draw_fakes(state: TrainState, part: Part) -> Tensor:
    """Fakes [B, C, H, W] float32 in [-1, 1], with the generator's graph behind them."""
    with state.hardware.autocast():
        fakes: Tensor = part.generator(part.latents, part.labels)
    return fakes.float()


def as_seen(part: Part, fakes: Tensor) -> Tensor:
    """The fakes as the discriminator sees them: shifted, where `train.max_shift` says so."""
    return fakes if part.fake_shifts is None else shift(fakes, part.fake_shifts)


def score(state: TrainState, part: Part, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits float32 [N] and class logits [N, classes], or None where the network has none."""
    with state.hardware.autocast():
        scores: tuple[Tensor, Tensor | None] = part.discriminator(images, part.labels)
    return scores


def loss_on_fakes(state: TrainState, part: Part, fakes: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on fakes alone, and their logits."""
    fake, _ = score(state, part, as_seen(part, fakes.detach()))
    return discriminator_fake_loss(state.params.objective, fake), fake


def loss_on_reals(state: TrainState, part: Part) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on reals alone, and their logits."""
    images = part.real.detach().requires_grad_(part.penalise)
    real, class_logits = score(state, part, images)
    loss = discriminator_real_loss(state.params.objective, real)
    return with_class_loss_and_r1(state, part, loss, images, real, class_logits), real


def with_class_loss_and_r1(
    state: TrainState,
    part: Part,
    loss: Tensor,
    images: Tensor,
    real: Tensor,
    class_logits: Tensor | None,
) -> Tensor:
    """`loss` plus what the discriminator learns from reals alone: their class loss, and R1 if penalised."""
    p = state.params
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, images)
    return loss


def pass_of_both(state: TrainState, part: Part, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of fakes and reals in one batch → (loss, logits [2N], first maps of both); fakes first.

    To a discriminator without batch norm it is the same as two passes, and faster.
    """
    images = part.real.detach().requires_grad_(part.penalise)
    with state.hardware.autocast():
        maps = part.projection.first_maps(torch.cat([as_seen(part, fakes.detach()), images]))
        scores, class_logits = part.projection.from_first_maps(maps, part.labels.repeat(2))
    (fake, real), objective = scores.chunk(2), state.params.objective
    loss = discriminator_fake_loss(objective, fake) + discriminator_real_loss(objective, real)
    of_reals = class_logits.chunk(2)[1]
    return with_class_loss_and_r1(state, part, loss, images, real, of_reals), scores, maps


def loss_on_both(state: TrainState, part: Part, fakes: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on fakes and reals together, and the logits of both, fakes first."""
    loss, scores, _ = pass_of_both(state, part, fakes)
    return loss, scores


def loss_of_generator(state: TrainState, part: Part, fakes: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's loss through the discriminator as it is now, and the logits of its fakes."""
    p = state.params
    fake, class_logits = score(state, part, as_seen(part, fakes))
    loss = generator_loss(p.objective, fake)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.labels)
    return loss, fake


def gradients_of_both(state: TrainState, part: Part) -> tuple[Gradients, Gradients, Logits]:
    """→ (the discriminator's gradients, the generator's, the logits) from one pass.

    A fake's gradient for one network's loss is a multiple of its gradient for the other's. So the
    discriminator's backward pass goes on to its first maps. There the fakes' half is turned into the
    generator's gradient, which goes on through the generator alone.
    """
    fakes = draw_fakes(state, part)
    loss, scores, maps = pass_of_both(state, part, fakes)
    fake, real = scores.detach().chunk(2)
    *for_discriminator, at_maps = torch.autograd.grad(
        loss / state.parts, [*weights_of(state.discriminator_optimizer), maps]
    )
    slopes = slope_ratio(state.params.objective, fake)
    at_maps = at_maps.chunk(2)[0] * slopes[:, None, None, None]
    with state.hardware.autocast():
        at_fakes = part.projection.gradient_at_images(at_maps)
    if part.fake_shifts is not None:
        at_fakes = shift(at_fakes, -part.fake_shifts)
    for_generator = torch.autograd.grad(fakes, weights_of(state.generator_optimizer), at_fakes)
    return tuple(for_discriminator), for_generator, Logits(real, fake, fake)
