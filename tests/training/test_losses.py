"""The adversarial maths against closed forms."""

import math

import pytest
import torch

from cgan.models.networks import Architecture, build_discriminator
from cgan.training.update import LEAST_SQUARES, LOGISTIC, r1_penalty, slope_ratio

LOGITS = [-3.0, 0.0, 0.5, 2.0]


def test_losses_are_those_of_the_papers() -> None:
    softplus = [sum(math.log(1 + math.exp(sign * x)) for x in LOGITS) / 4 for sign in (-1, 1)]
    squares = [sum((x - target) ** 2 for x in LOGITS) / 8 for target in (1, 0)]
    # As real, as fake. Non-saturating: the generator's is the first, -log D(fake), not log(1 - D(fake)).
    for objective, (real, fake) in ((LOGISTIC, softplus), (LEAST_SQUARES, squares)):
        for loss, expected in ((objective.real_loss, real), (objective.fake_loss, fake)):
            assert loss(torch.tensor(LOGITS)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_logistic_stays_finite_at_extreme_logits(sign: int) -> None:
    logits = torch.tensor([sign * 1e4], requires_grad=True)
    loss = LOGISTIC.real_loss(logits) + LOGISTIC.fake_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad is not None and logits.grad.item() == pytest.approx(sign)


def test_slope_ratio_turns_one_gradient_into_the_other() -> None:
    fake = torch.tensor([-40.0, -3.0, 1e-3, 0.5, 2.0, 30.0], requires_grad=True)
    (of_discriminator,) = torch.autograd.grad(LOGISTIC.fake_loss(fake), fake)
    (of_generator,) = torch.autograd.grad(LOGISTIC.real_loss(fake), fake)
    turned = of_discriminator * slope_ratio(fake.detach())
    torch.testing.assert_close(turned, of_generator, rtol=1e-5, atol=1e-9)
    assert slope_ratio(torch.tensor([0.0, 1e-30, -1e4, 1e4])).isfinite().all()


def test_r1_equals_the_gradient_of_each_image_alone() -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(Architecture("projection", 3, 3, 8, 8, features=4)).double()
    images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    squares = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(image, label[None])[0].sum(), image)
        squares.append(gradient.square().sum().item())
    images.requires_grad_()
    penalty = r1_penalty(discriminator(images, labels)[0], images)
    assert penalty.item() == pytest.approx(0.5 * sum(squares) / 6, rel=1e-5)
