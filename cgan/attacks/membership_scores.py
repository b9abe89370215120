"""How much a real image looks like a member: the scores of attacks that ask whether it was trained on.

From drawings alone: how near the nearest drawing of the class is, relative to the nearest other real image,
for a typical image has near neighbours whatever was trained (after GAN-Leaks: Chen et al., arXiv:1909.03935,
who calibrate by a reference model instead). From a generator's file: how well it can be made to draw the
image (the same paper's white-box attack). From a discriminator: how real it takes the image to be (LOGAN:
Hayes et al., arXiv:1705.07663).
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cgan.attacks.membership import FloatArray
from cgan.model.hardware import exact_floats
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.model.sampling import draw_latents
from cgan.quality.judge import Progress, silent
from cgan.quality.likeness import nearest_neighbours

MIN_DISTANCE = 1e-3  # no distance counts as less, for that of a copy, 0, has no logarithm
# Of a reconstruction: random latents tried for an image, and steps and rate of Adam from the best of them.
STARTS, ADAM_STEPS, ADAM_RATE = 16, 60, 0.1
BATCH = 100  # images


def pixel_scores(images: Tensor, labels: Tensor, drawn: Tensor, drawn_labels: Tensor) -> FloatArray:
    """The score of each image, uint8 [N, C, H, W], by `cgan.quality.likeness`, which sees past small shifts
    and other brightness. Real neighbours are looked for among the same images."""
    to_drawn = nearest_neighbours(images, labels, drawn, drawn_labels)[0][:, 0]
    # The two nearest of its class: one of them is the image itself, unless it has copies.
    distances, rows = nearest_neighbours(images, labels, images, labels, 2)
    is_itself = rows == torch.arange(len(images))[:, None]
    to_real = distances.masked_fill(is_itself, math.inf).amin(dim=1)
    return _calibrated(to_drawn, to_real)


def feature_scores(
    images: Tensor, labels: Tensor, drawn: Tensor, drawn_labels: Tensor
) -> FloatArray:
    """The score of each image by features, float32 [N, D] of images and [M, D] of drawings. They are to be of
    a network that has seen none of the images: one that was trained on the members knows them by heart, and
    would tell them apart whatever the drawings are."""
    to_drawn = torch.full((len(images),), math.inf)
    for label in labels.unique():
        rows, drawings = labels == label, drawn_labels == label
        if drawings.any():
            to_drawn[rows] = torch.cdist(images[rows], drawn[drawings]).amin(dim=1)
    return _calibrated(to_drawn, _to_nearest_other(images, labels))


def _to_nearest_other(vectors: Tensor, labels: Tensor) -> Tensor:
    """The distance of each of N vectors to the nearest other one of its label; infinite where it is alone."""
    found = torch.full((len(vectors),), math.inf)
    for label in labels.unique():
        of_label = vectors[labels == label]
        to_others = torch.cdist(of_label, of_label).fill_diagonal_(math.inf)
        found[labels == label] = to_others.amin(dim=1)
    return found


def _calibrated(to_drawn: Tensor, to_real: Tensor) -> FloatArray:
    """The logarithm of the distance to the real image, less that to the drawing: the nearer the drawing, the
    higher. Where a class has no drawings or only one image, nothing is known: all of it score 0."""
    known = to_drawn.isfinite() & to_real.isfinite()
    logs = to_real.clamp(min=MIN_DISTANCE).log() - to_drawn.clamp(min=MIN_DISTANCE).log()
    return logs.where(known, 0.0).double().numpy()


def reconstruction_scores(
    network: GeneratorNetwork,
    images: Tensor,
    labels: Tensor,
    seed: int,
    progress: Progress = silent,
) -> FloatArray:
    """How well `network` can be made to draw each image, uint8 [N, C, H, W], as one of its class: minus the
    logarithm of the error, relative to the distance of the nearest other image. The latent is found by Adam,
    from the best of STARTS random ones."""
    device = network.device
    parts = torch.arange(len(images)).split(BATCH)
    bar = partial(progress, "reconstructing", images_a_step=BATCH)
    with exact_floats():
        errors = torch.cat(
            [
                _error(network, images[parts[n]].to(device), labels[parts[n]].to(device), seed + n)
                for n in bar(range(len(parts)))
            ]
        )
    return _calibrated(errors, _to_nearest_other(_scaled(images).flatten(1), labels))


def _error(network: GeneratorNetwork, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """The distance of each image to its reconstruction, float32 [N]."""
    targets, condition = _scaled(images).flatten(1), network.condition(labels)
    size = network.architecture.latent_dim

    def squared_errors(latents: Tensor) -> Tensor:
        drawn: Tensor = network.from_condition(latents, condition).flatten(1)
        return (drawn.float() - targets).square().sum(dim=1)

    with torch.no_grad():
        starts = draw_latents(seed, STARTS * len(images), size).to(images.device)
        starts = starts.view(STARTS, len(images), size)
        best = torch.stack([squared_errors(latents) for latents in starts]).argmin(dim=0)
    latents = starts[best, torch.arange(len(images))].clone().requires_grad_()
    optimizer, at_start = torch.optim.Adam([latents], ADAM_RATE), squared_errors(latents).detach()
    for _ in range(ADAM_STEPS):
        (gradient,) = torch.autograd.grad(squared_errors(latents).sum(), latents)
        latents.grad = gradient
        optimizer.step()
    with torch.no_grad():
        errors = torch.minimum(at_start, squared_errors(latents))
    return errors.sqrt().cpu()


@torch.inference_mode()
def discriminator_scores(
    network: DiscriminatorNetwork, images: Tensor, labels: Tensor
) -> FloatArray:
    """How real the discriminator takes each image, uint8 [N, C, H, W], to be, as one of its class."""
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    device, was_training = next(network.parameters()).device, network.training
    network.eval()  # a batch norm would make scores depend on their neighbours
    with exact_floats():
        logits = [
            network(_scaled(batch.to(device)), batch_labels.to(device))[0]
            for batch, batch_labels in batches
        ]
    network.train(was_training)
    return torch.cat(logits).double().cpu().numpy().astype(np.float64)


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
