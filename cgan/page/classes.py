"""How well each class is drawn, by the gate's limits and beside real images, and what to change."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cgan.evaluation import ClassScores, Evaluation
from cgan.model.generative import GenerativeModel
from cgan.params.sections import GateParams
from cgan.proportions import proportion_interval
from cgan.quality.intervals import falls_short
from cgan.report import Table
from cgan.settings import setting

POOR, DOUBTFUL, GOOD = "poor", "doubtful", "good"
# Held-out images of a class: below, the accuracy of real ones is known to ± 10 points or worse.
MIN_HELD_OUT = 20
# A class has few images below this number, and below this fraction of what the median class has.
MIN_IMAGES, MIN_IMAGES_OF_MEDIAN = 50, 0.5
MIN_DIVERSITY = 0.9  # as a fraction of real images': below, for certain, a class is doubtful
MAX_MISTAKES = 60

# Advice, which follows the names of the classes.
MORE_IMAGES = (
    "there are few images to learn from, or to judge by. Add more, which helps more than any param."
)
WEAK_JUDGE = (
    "the judge misreads real images as well, so it cannot say how well these are drawn. Compare them with "
    "real images yourself; add images, or larger ones."
)


@dataclass(frozen=True)
class JudgedClass:
    """A class with its scores, and what to think of it."""

    label: int
    scores: ClassScores
    state: str
    advice: str


def judged_classes(
    evaluation: Evaluation, counts: Sequence[int] | None, limits: GateParams, model: GenerativeModel
) -> list[JudgedClass]:
    """Each class with the state and the advice of the first rule that applies. `counts`: of all images of
    each class, where they are known."""
    judge_accuracy = evaluation.score("conditional_accuracy").real
    weak_judge = judge_accuracy is not None and judge_accuracy < limits.min_judge_accuracy
    fewest = max(MIN_IMAGES, MIN_IMAGES_OF_MEDIAN * statistics.median(counts)) if counts else 0
    illegible, repetitive = advice_on(model)
    confusion = torch.tensor(evaluation.confusion)
    short = falls_short(
        confusion.diagonal(), confusion.sum(dim=1), limits.min_worst_class_accuracy
    ).tolist()
    judged = []
    for label, scores in enumerate(evaluation.classes):
        images, real = counts[label] if counts else None, scores.real_accuracy
        is_judged = scores.accuracy is not None and math.isfinite(scores.accuracy)
        _, high = scores.accuracy_interval or (0.0, 1.0)
        diversity_low, diversity_high = scores.diversity_interval or (1.0, 1.0)
        rare = images is not None and images < fewest
        wrong = is_judged and short[label]
        alike = diversity_low < limits.min_worst_class_diversity
        behind_real = (
            is_judged and real is not None and high < proportion_interval(real, scores.heldout)[0]
        )
        real_is_misread = (real or 0) < limits.min_worst_class_accuracy and not behind_real
        rules = (
            (DOUBTFUL, evaluation.not_measurable, WEAK_JUDGE),
            (POOR, rare and (wrong or alike), MORE_IMAGES),
            (POOR, wrong and not real_is_misread, illegible),
            (POOR, wrong and not weak_judge, WEAK_JUDGE),
            (POOR, alike, repetitive),
            (DOUBTFUL, weak_judge, WEAK_JUDGE),
            (DOUBTFUL, behind_real, illegible),
            (DOUBTFUL, diversity_high < MIN_DIVERSITY, repetitive),
            (DOUBTFUL, scores.heldout < MIN_HELD_OUT or not is_judged, MORE_IMAGES),
        )
        matches = ((state, advice) for state, applies, advice in rules if applies)
        judged.append(JudgedClass(label, scores, *next(matches, (GOOD, ""))))
    return judged


def advice_on(model: GenerativeModel) -> tuple[str, str]:
    """What to change where drawings are taken for another class, and where they repeat themselves: the same
    param makes them more legible or more varied."""
    first = "Add images"
    if model.kind.is_trained:
        first = f"Train longer ({setting('train.total_kimg')})"
    more = less = ""
    if model.legibility_param:
        param = setting(model.legibility_param)
        more = f", or raise {param}, which makes them easier to recognise, but less varied"
        less = f", or lower {param}, which makes them more varied, but harder to recognise"
    return (
        f"the drawings are often taken for another class. {first}{more}.",
        f"the drawings repeat themselves. {first}{less}.",
    )


def frequent_mistakes(evaluation: Evaluation, names: Sequence[str]) -> Table:
    """The class asked for, the class that the judge sees, and the count: the most frequent first."""
    mistakes = [
        (names[asked], names[seen], count)
        for asked, row in enumerate(evaluation.confusion)
        for seen, count in enumerate(row)
        if count and asked != seen
    ]
    return Table(
        "Drawings that the judge takes for another class",
        ("asked for", "the judge sees", "drawings"),
        sorted(mistakes, key=lambda mistake: -mistake[2])[:MAX_MISTAKES],
    )
