"""The adversarial objectives: all the adversarial maths.

- logistic: the non-saturating loss of Goodfellow et al. (arXiv:1406.2661, section 3).
- least_squares: Mao et al. (arXiv:1611.04076, eq. 9 with a=0, b=c=1); the demo's squared error.
- One pass for both networks: Shen et al. (arXiv:2103.00430), the generator's gradient is the
  discriminator's, times the ratio of the losses' slopes (`slope_ratio`).
- R1: Mescheder et al. (arXiv:1801.04406, eq. 9), penalised lazily (Karras et al., arXiv:1912.04958).

`real` and `fake` are the discriminator's logits, float32 [N]; losses and penalty are scalars.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def discriminator_real_loss(objective: str, real: Tensor) -> Tensor:
    if objective == "logistic":
        return softplus(-real).mean()
    return 0.5 * (real - 1).square().mean()


def discriminator_fake_loss(objective: str, fake: Tensor) -> Tensor:
    if objective == "logistic":
        return softplus(fake).mean()
    return 0.5 * fake.square().mean()


generator_loss = discriminator_real_loss  # the generator wants its fakes taken for real


def slope_ratio(objective: str, fake: Tensor) -> Tensor:
    """Slope of the generator's loss over slope of the discriminator's, at each fake's logit [N].

    A fake's gradient for the discriminator, times this ratio, is its gradient for the generator, because
    its logit depends on no other image. The ratio is -exp(-f) for the logistic pair and (f-1)/f for least
    squares. It stays finite where the discriminator's slope vanishes: such a fake then teaches nothing,
    where it would otherwise give NaN.
    """
    if objective == "logistic":
        return -torch.exp(-fake.clamp(min=-60.0))
    slope = torch.where(fake.abs() < 1e-6, torch.full_like(fake, 1e-6), fake)
    return (fake - 1) / slope


def r1_penalty(real: Tensor, images: Tensor) -> Tensor:
    """½·mean‖∂real/∂images‖². Times γ·interval it is the lazy R1 term.

    `images` [N, C, H, W] must require grad and have made `real`; each image's logit may depend on
    that image alone (no batch norm), so the gradient of the sum holds each image's own gradient.
    """
    (gradient,) = torch.autograd.grad(real.sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()
