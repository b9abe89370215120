"""The gate's limit on how well drawings tell who was in the training data."""

from cgan.downstream.membership import Attack, others_needed
from cgan.verdict import Check


def membership_check(attack: Attack, limit: float) -> Check:
    """Do the drawings tell at most so well which images were trained on? A hold-out too small to show it
    passes nothing, and says how many images would do."""
    what = "how well drawings tell training images from held-out ones (AUC; 0.5 is chance)"
    passed, needed = attack.interval[1] <= limit, others_needed(limit, attack.members)
    why = ""
    if not passed and not (needed and needed <= attack.others):
        more = "no hold-out could, of so few to train on"
        if needed:
            more = f"{needed:,} held-out images could"
        why = f"{attack.others:,} held-out images cannot show that it is at most {limit:g}; {more}"
    return Check("membership_auc", what, attack.auc, limit, passed, True, attack.interval, why)
