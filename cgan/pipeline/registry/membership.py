"""The gate's limit on how well drawings tell who was in the training data."""

from cgan.downstream.attacker import MOST
from cgan.downstream.membership import Attack, non_members_needed
from cgan.verdict import Check


def membership_check(attack: Attack, limit: float) -> Check:
    """Do the drawings tell at most so well which images were trained on? A hold-out too small to show it
    passes nothing, and says how many images show it of a generator that tells nothing, four times of five."""
    what = "how well drawings tell training images from held-out ones (AUC; 0.5 is chance)"
    (low, high), needed = attack.interval, non_members_needed(limit, attack.members)
    why = ""
    if low <= limit < high and (needed is None or attack.others < needed):
        more = f"beside {attack.members:,} training images no hold-out is large enough"
        if needed and needed <= MOST:
            more = f"{needed:,} would show it four times of five, if the drawings tell nothing"
        why = f"{attack.others:,} held-out images are too few to show that it is at most {limit:g}; {more}"
    return Check(
        "membership_auc", what, attack.auc, limit, high <= limit, True, attack.interval, why
    )
