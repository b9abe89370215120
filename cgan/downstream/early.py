"""When more rounds cannot change the verdict.

After each round the difference so far is looked at. To look often makes chance findings likelier, so an early
end needs a clearer difference, by O'Brien and Fleming's boundary (Biometrics 35, 1979): after k of K rounds
the limit is √(K/k) times as many standard errors. A verdict of no difference stands early where the rounds
to come would have to be unlike those that were. docs/log.md has the error rates.
"""

import math
from collections.abc import Sequence

from cgan.downstream.effect import (
    LEVEL,
    NORMAL,
    WIDER_LEVEL,
    WIDER_NORMAL,
    Difference,
    Outcome,
    effect,
    variance_of_mean,
)
from cgan.quality.intervals import critical_t


def is_settled(
    rounds: Sequence[Outcome], methods: Sequence[str], planned: int, folded: bool
) -> bool:
    """Would all `planned` rounds give the verdict that these give? Of one round nothing is known."""
    if not 1 < len(rounds) < planned:
        return False
    so_far, done = effect(rounds, methods, folded).overall, len(rounds)
    return _is_clear(so_far, done, planned) or _stays_unclear(so_far, done, planned, folded)


def _is_clear(so_far: Difference, done: int, planned: int) -> bool:
    # Harm has to be clearer.
    level, normal = (LEVEL, NORMAL) if so_far.gain > 0 else (WIDER_LEVEL, WIDER_NORMAL)
    of_rounds = critical_t(done - 1, level) * so_far.deviation_of_rounds
    reach = math.hypot(normal * so_far.deviation_of_images, of_rounds)
    return abs(so_far.gain) > reach * math.sqrt(planned / done)


def _stays_unclear(so_far: Difference, done: int, planned: int, folded: bool) -> bool:
    """Would even the largest difference that all rounds are likely to have lie within the noise of the tested
    images alone? `reach`: how far the mean of all rounds may lie from that so far. Folds to come bring
    further images, whose noise is part of it."""
    spread = so_far.deviation_of_rounds / math.sqrt(variance_of_mean(done, folded))
    reach = critical_t(done - 1, LEVEL) * spread * math.sqrt(1 / done - 1 / planned)
    of_images = NORMAL * so_far.deviation_of_images
    if folded:
        reach = math.hypot(reach, of_images * math.sqrt(1 - done / planned))
        of_images *= math.sqrt(done / planned)
    return abs(so_far.gain) + reach < of_images
