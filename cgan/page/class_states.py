"""Whether each class is drawn well, by the gate's limits and beside real images, and what helps where not."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from cgan.params.sections import GateParams
from cgan.quality.intervals import falls_short, proportion_interval

GOOD, DOUBTFUL, POOR = "good", "doubtful", "poor"
FEW_HELD_OUT = 20  # images: below, the accuracy of real images is known to ± 10 points or worse
FEW_IMAGES, RARE = 50, 0.5  # images of a class; as a part of what the median class has
LESS_DIVERSE = 0.9  # than real images
# By how much a distance exceeds that of real images, as a fraction of their variance (`excess_by_class`).
UNLIKE, VERY_UNLIKE = 0.1, 0.3

# After the names of the classes; params of the training are called as in params.yaml. What is advised was
# tried; the log has it under the day that is named.
NOT_MEASURABLE = (  # 2026-11-29, unequal classes
    "the judge does not know real images well enough to judge drawings. Add images, larger ones if these "
    "are small, or train the judge longer."
)
JUDGE_FAILS = (  # 2026-11-29, like is compared with like
    "the judge misreads real images as well, so the drawings may not be to blame. Look at the labels below, "
    "and add images."
)
MORE_IMAGES = (  # 2026-11-29, unequal classes; do drawings help
    "there are few images to learn from. Add more, which helps more than any param; showing the same few "
    "images more often gives copies. For a classifier, a class-balanced loss helps as much as drawings."
)
WEAK_JUDGE = (  # 2026-11-30, diversity of a class
    "the judge misreads many real images of all classes, so it cannot say how well these are drawn. Compare "
    "them with real images; add images, or larger ones."
)
LONGER = (  # 2026-11-29, photographs, another try
    "the drawings are unlike real images. Train longer (`train.total_kimg`), and add images; photographs "
    "need thousands per class."
)
LEGIBLE = (  # 2026-11-26, one pass for both networks
    "the drawings are often taken for another class. Train longer (`train.total_kimg`), or raise "
    "`train.class_logit_weight`, which makes drawings easier to recognise, but less varied."
)
VARIED = (  # 2026-11-27, how many different drawings; 2026-11-26
    "the drawings repeat themselves. Train longer (`train.total_kimg`), or lower `train.class_logit_weight`, "
    "which makes drawings more varied, but harder to recognise."
)
# Of a local score sampler, which has no training.
SAMPLED_UNLIKE = (
    "the drawings are unlike real images. Add images: nothing is trained that could learn longer."
)
SAMPLED_LEGIBLE = (
    "the drawings are often taken for another class. Add images, or raise `train.score_window_scale`, which "
    "makes them easier to recognise, but nearer to training images."
)
SAMPLED_VARIED = "the drawings repeat themselves. Lower `train.score_window_scale`, or add images."
HOLD_OUT_MORE = (  # 2026-11-29, like is compared with like
    f"fewer than {FEW_HELD_OUT} images are held out, so the numbers say little. Hold out more of them, or "
    "add images."
)
NOT_DRAWN = "too few drawings were judged. Evaluate with more of them."


def add_states(
    classes: Sequence[dict[str, Any]],
    measurable: bool,
    judge_accuracy: float | None,
    limits: GateParams,
    *,
    trained: bool = True,
) -> None:
    """Give each class a `state` and `advice`, by the first rule that applies. `judge_accuracy`: on real
    images of all classes. `trained`: whether the generator is."""
    legible, varied = (LEGIBLE, VARIED) if trained else (SAMPLED_LEGIBLE, SAMPLED_VARIED)
    unlike = LONGER if trained else SAMPLED_UNLIKE
    counts = [facts["images"] for facts in classes]
    few = 0 if None in counts else max(FEW_IMAGES, RARE * statistics.median(counts))
    weak = judge_accuracy is not None and judge_accuracy < limits.min_judge_accuracy
    right, asked = (torch.tensor([facts[key] for facts in classes]) for key in ("right", "asked"))
    short = falls_short(right, asked, limits.min_worst_class_accuracy).tolist()
    for facts, wrong_beyond_chance in zip(classes, short, strict=True):
        low, high, judge = (facts[key] for key in ("low", "high", "judge"))
        least, most = facts["diversity_interval"] or (1.0, 1.0)
        excess = (facts["excess_interval"] or (0.0, 0.0))[0]
        rare = bool(few) and facts["images"] < few
        judged = low is not None
        wrong = judged and wrong_beyond_chance
        alike = least < limits.min_worst_class_diversity
        clearly_less = (
            judged and judge is not None and high < proportion_interval(judge, facts["heldout"])[0]
        )
        misread = (judge or 0) < limits.min_worst_class_accuracy and not clearly_less
        rules = (
            (DOUBTFUL, not measurable, NOT_MEASURABLE),
            (POOR, wrong and misread and not weak, JUDGE_FAILS),
            (POOR, rare and (wrong or alike or excess > VERY_UNLIKE), MORE_IMAGES),
            (POOR, excess > VERY_UNLIKE, unlike),
            (POOR, wrong and not misread, legible),
            (POOR, alike, varied),
            (DOUBTFUL, excess > UNLIKE, unlike),
            (DOUBTFUL, wrong, WEAK_JUDGE),
            (DOUBTFUL, clearly_less, legible),
            (DOUBTFUL, most < LESS_DIVERSE, varied),
            (DOUBTFUL, facts["heldout"] < FEW_HELD_OUT, HOLD_OUT_MORE),
            (DOUBTFUL, not judged, NOT_DRAWN),
        )
        applying = ((state, advice) for state, applies, advice in rules if applies)
        facts["state"], facts["advice"] = next(applying, (GOOD, ""))
