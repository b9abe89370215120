"""Evidence that ends early: what it may decide, and how seldom it is wrong."""

from collections.abc import Sequence

import numpy as np
import torch

from cgan.downstream.early import is_settled
from cgan.downstream.effect import DRAWN, Outcome, effect

CLASSES, EACH = 4, 50


def rounds(gain: float, planned: int, random: np.random.Generator) -> list[Outcome]:
    """Of seeds: all test the same images, some of which are harder."""
    labels, ease = torch.arange(CLASSES * EACH) % CLASSES, random.beta(8, 1.5, CLASSES * EACH)
    units, found = torch.arange(CLASSES * EACH), []
    for _ in range(planned):
        luck = random.random(CLASSES * EACH)
        other = np.where(random.random(len(luck)) < 0.7, luck, random.random(len(luck)))
        right = {
            "real": torch.from_numpy(luck < ease),
            DRAWN: torch.from_numpy(other < np.clip(ease + gain, 0, 1)),
        }
        found.append(Outcome(labels, units, right))
    return found


def ended(all_rounds: Sequence[Outcome]) -> tuple[int, str]:
    planned = len(all_rounds)
    after = next(
        (n for n in range(1, planned) if is_settled(all_rounds[:n], ["real"], planned, False)),
        planned,
    )
    return after, effect(all_rounds[:after], ["real"], False).overall.verdict


def test_neutral_drawings_are_seldom_said_to_help_or_harm_and_a_clear_gain_ends_early() -> None:
    random = np.random.default_rng(1)
    neutral = [ended(rounds(0.0, 5, random)) for _ in range(80)]
    assert sum(verdict != "no difference" for _, verdict in neutral) <= 6
    assert np.mean([after for after, _ in neutral]) < 5, "some are settled early"
    for gain, verdict in ((0.3, "help"), (-0.3, "harm")):
        clear = [ended(rounds(gain, 8, random)) for _ in range(10)]
        assert {found for _, found in clear} == {verdict}
        assert np.mean([after for after, _ in clear]) < 6


def test_of_one_round_nothing_is_known_and_all_rounds_need_no_boundary() -> None:
    found = rounds(0.4, 3, np.random.default_rng(2))
    assert not is_settled(found[:1], ["real"], 3, False)
    assert not is_settled(found, ["real"], 3, False)
