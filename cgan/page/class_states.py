"""Whether each class is drawn well, by the gate's limits and beside real images, and what helps where not."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from cgan.params.sections import GateParams
from cgan.quality.intervals import falls_short, proportion_interval

GOOD, DOUBTFUL, POOR = "good", "doubtful", "poor"
MIN_HELD_OUT = (
    20  # images of a class: below, the accuracy of real ones is known to ± 10 points or worse
)
# A class has few images below this number, and below this fraction of what the median class has.
MIN_IMAGES, MIN_IMAGES_OF_MEDIAN = 50, 0.5
MIN_DIVERSITY = 0.9  # as a fraction of real images': below, for certain, a class is doubtful
# By how much a distance exceeds that of real images, as a fraction of their variance (`excess_interval`):
# limits of a doubtful and of a poor class (docs/log.md, 2026-11-30, "diversity of a class").
DOUBTFUL_EXCESS, POOR_EXCESS = 0.1, 0.3

# Advice, which follows the names of the classes; params of the training are called as in params.yaml. It was
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
WHEN_UNLIKE = (  # 2026-11-29, photographs, another try
    "the drawings are unlike real images. Train longer (`train.total_kimg`), and add images; photographs "
    "need thousands per class."
)
WHEN_ILLEGIBLE = (  # 2026-11-26, one pass for both networks
    "the drawings are often taken for another class. Train longer (`train.total_kimg`), or raise "
    "`train.class_logit_weight`, which makes drawings easier to recognise, but less varied."
)
WHEN_REPETITIVE = (  # 2026-11-27, how many different drawings; 2026-11-26
    "the drawings repeat themselves. Train longer (`train.total_kimg`), or lower `train.class_logit_weight`, "
    "which makes drawings more varied, but harder to recognise."
)
# Of a local score sampler, which has no training.
SAMPLED_UNLIKE = (
    "the drawings are unlike real images. Add images: nothing is trained that could learn longer."
)
SAMPLED_ILLEGIBLE = (
    "the drawings are often taken for another class. Add images, or raise `train.score_window_scale`, which "
    "makes them easier to recognise, but nearer to training images."
)
SAMPLED_REPETITIVE = (
    "the drawings repeat themselves. Lower `train.score_window_scale`, or add images."
)
HOLD_OUT_MORE = (  # 2026-11-29, like is compared with like
    f"fewer than {MIN_HELD_OUT} images are held out, so the numbers say little. Hold out more of them, or "
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
    unlike, illegible, repetitive = (
        (WHEN_UNLIKE, WHEN_ILLEGIBLE, WHEN_REPETITIVE)
        if trained
        else (SAMPLED_UNLIKE, SAMPLED_ILLEGIBLE, SAMPLED_REPETITIVE)
    )
    counts = [facts["images"] for facts in classes]
    is_counted = None not in counts
    fewest = max(MIN_IMAGES, MIN_IMAGES_OF_MEDIAN * statistics.median(counts)) if is_counted else 0
    weak_judge = judge_accuracy is not None and judge_accuracy < limits.min_judge_accuracy
    right, asked = (torch.tensor([facts[key] for facts in classes]) for key in ("right", "asked"))
    short = falls_short(right, asked, limits.min_worst_class_accuracy).tolist()
    for facts, is_short in zip(classes, short, strict=True):
        low, high, real = (facts[key] for key in ("low", "high", "judge"))
        diversity_low, diversity_high = facts["diversity_interval"] or (1.0, 1.0)
        excess, _ = facts["excess_interval"] or (0.0, 0.0)  # the end that is certain
        judged = low is not None
        rare = is_counted and facts["images"] < fewest
        wrong = judged and is_short
        alike = diversity_low < limits.min_worst_class_diversity
        behind_real = (
            judged and real is not None and high < proportion_interval(real, facts["heldout"])[0]
        )
        real_is_misread = (real or 0) < limits.min_worst_class_accuracy and not behind_real
        rules = (
            (DOUBTFUL, not measurable, NOT_MEASURABLE),
            (POOR, wrong and real_is_misread and not weak_judge, JUDGE_FAILS),
            (POOR, rare and (wrong or alike or excess > POOR_EXCESS), MORE_IMAGES),
            (POOR, excess > POOR_EXCESS, unlike),
            (POOR, wrong and not real_is_misread, illegible),
            (POOR, alike, repetitive),
            (DOUBTFUL, excess > DOUBTFUL_EXCESS, unlike),
            (DOUBTFUL, wrong, WEAK_JUDGE),
            (DOUBTFUL, behind_real, illegible),
            (DOUBTFUL, diversity_high < MIN_DIVERSITY, repetitive),
            (DOUBTFUL, facts["heldout"] < MIN_HELD_OUT, HOLD_OUT_MORE),
            (DOUBTFUL, not judged, NOT_DRAWN),
        )
        matches = ((state, advice) for state, applies, advice in rules if applies)
        facts["state"], facts["advice"] = next(matches, (GOOD, ""))
