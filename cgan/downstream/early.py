"""An early end of evidence: when more rounds would hardly change the verdict.

After each round the difference so far is looked at. To look often makes chance findings likelier, so an early
end needs a clearer difference: after k of K rounds the limit is √(K/k) times as many standard errors. That is
the shape of O'Brien and Fleming's boundary (Biometrics 35, 1979), not its level: for five looks theirs ends
at 2.040 standard errors, this at 1.96; and the tested images' noise does not fall with k, so that k/K is no
fraction of the information. Hence the error rates are not theirs, but were simulated: docs/log.md,
2026-11-30, "who was in the training data, and evidence that ends early". A verdict of no difference stands
early where the rounds to come would have to be unlike those that were.
"""

import math
from collections.abc import Sequence

from cgan.downstream.effect import (
    CONFIDENCE,
    WIDER_CONFIDENCE,
    WIDER_Z,
    Difference,
    Outcome,
    Z,
    effect,
    variance_of_mean,
)
from cgan.quality.intervals import critical_t


def is_settled(
    outcomes: Sequence[Outcome], methods: Sequence[str], planned: int, folded: bool
) -> bool:
    """Would all `planned` rounds give the verdict that these give? Of one round nothing is known."""
    if not 1 < len(outcomes) < planned:
        return False
    so_far, done = effect(outcomes, methods, folded).overall, len(outcomes)
    return _is_clear(so_far, done, planned) or _stays_unclear(so_far, done, planned, folded)


def _is_clear(so_far: Difference, done: int, planned: int) -> bool:
    # Harm has to be clearer.
    level, z = (CONFIDENCE, Z) if so_far.gain > 0 else (WIDER_CONFIDENCE, WIDER_Z)
    of_rounds = critical_t(done - 1, level) * so_far.standard_error_of_rounds
    half_width = math.hypot(z * so_far.standard_error_of_images, of_rounds)
    return abs(so_far.gain) > half_width * math.sqrt(planned / done)


def _stays_unclear(so_far: Difference, done: int, planned: int, folded: bool) -> bool:
    """Would even the largest difference that all rounds are likely to have lie within the noise of the tested
    images alone? Folds to come bring further images, whose noise adds to how far the mean may still move."""
    deviation_of_round = so_far.standard_error_of_rounds / math.sqrt(variance_of_mean(done, folded))
    # The mean of K rounds differs from that of the first k of them with the variance σ² (1/k - 1/K).
    move = critical_t(done - 1, CONFIDENCE) * deviation_of_round
    move *= math.sqrt(1 / done - 1 / planned)
    noise = Z * so_far.standard_error_of_images
    if folded:
        move = math.hypot(move, noise * math.sqrt(1 - done / planned))
        noise *= math.sqrt(done / planned)
    return abs(so_far.gain) + move < noise
