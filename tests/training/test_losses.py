"""The adversarial maths against closed forms."""

import math

import pytest
import torch

from cgan.model.networks import Architecture, build_discriminator
from cgan.training.update import fake_loss, r1_penalty, real_loss, slope_ratio

LOGITS = [-3.0, 0.0, 0.5, 2.0]


def test_losses_are_those_of_the_papers() -> None:
    softplus = [sum(math.log(1 + math.exp(sign * x)) for x in LOGITS) / 4 for sign in (-1, 1)]
    squares = [sum((x - target) ** 2 for x in LOGITS) / 8 for target in (1, 0)]
    # As real, as fake. Non-saturating: the generator's is the first, -log D(fake), not log(1 - D(fake)).
    for objective, (real, fake) in {"logistic": softplus, "least_squares": squares}.items():
        for loss, expected in ((real_loss, real), (fake_loss, fake)):
            found = loss(objective, torch.tensor(LOGITS)).item()
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_logistic_stays_finite_at_extreme_logits(sign: int) -> None:
    logits = torch.tensor([sign * 1e4], requires_grad=True)
    loss = real_loss("logistic", logits) + fake_loss("logistic", logits)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad is not None and logits.grad.item() == pytest.approx(sign)


@pytest.mark.parametrize("objective", ["logistic", "least_squares"])
def test_slope_ratio_turns_one_loss_s_gradient_into_the_other_s_and_is_finite_everywhere(
    objective: str,
) -> None:
    fake = torch.tensor([-40.0, -3.0, 1e-3, 0.5, 2.0, 30.0], requires_grad=True)
    of_discriminator, of_generator = (
        torch.autograd.grad(loss(objective, fake), fake)[0] for loss in (fake_loss, real_loss)
    )
    turned = of_discriminator * slope_ratio(objective, fake.detach())
    torch.testing.assert_close(turned, of_generator, rtol=1e-5, atol=1e-9)
    assert slope_ratio(objective, torch.tensor([0.0, 1e-30, -1e-30, -1e4, 1e4])).isfinite().all()
    # It is 1 - 1/f; closer to 0 than 10⁻⁶ it is held.
    held, beside = slope_ratio("least_squares", torch.tensor([0.0, 1.01e-6])).tolist()
    assert held == pytest.approx(-1e6, rel=1e-5) and beside == pytest.approx(-1e6, rel=0.02)


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
