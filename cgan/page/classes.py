"""The state of each class, good to poor, by the gate's limits and beside real images, and what to change."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cgan.base.settings import setting
from cgan.base.text import listed
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel
from cgan.params.sections import GateParams
from cgan.quality.evaluation import ClassScores, Evaluation

STATES = POOR, DOUBTFUL, GOOD, UNJUDGED = "poor", "doubtful", "good", ""  # the worst first
# Of a class: with fewer, the accuracy of real images is known to ± 10 points or worse.
FEW_HELD_OUT = 20
# A class has few images below this number, and below this fraction of what the median class has.
FEW_IMAGES = 50
FEW_IMAGES_OF_MEDIAN = 0.5
DOUBTFUL_DIVERSITY = 0.9  # as a fraction of real images': below, for certain, a class is doubtful

# Advice, which follows the names of the classes.
MORE_IMAGES = (
    "there are few images to learn from, or to judge by. Add more, which helps more than any param."
)
MISREAD = (
    "the judge misreads real images as well, so it cannot say how well these are drawn. Compare them with "
    "real images yourself; add images, or larger ones."
)
# Of all classes.
WEAK_JUDGE = (
    "More images would, or larger ones. So may pretrained features: `cgan evidence`, with the extra "
    "`pretrained`, says how well these tell the classes apart."
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
    fewest = max(FEW_IMAGES, FEW_IMAGES_OF_MEDIAN * statistics.median(counts)) if counts else 0
    illegible, repetitive = advice_on(model)
    short = evaluation.classes_below_real(limits.min_relative_accuracy)
    judged = []
    for label, scores in enumerate(evaluation.classes):
        accuracy, diversity = evaluation.upper_shares_of_real(label)
        rare = counts is not None and counts[label] < fewest
        wrong = label in short
        least = limits.min_worst_class_diversity
        alike = scores.diversity is not None and scores.diversity < least
        misread = (scores.real_accuracy or 0) < evaluation.min_judge_accuracy
        rules = (
            (UNJUDGED, evaluation.judge_weakness, ""),
            (POOR, rare and (wrong or alike), MORE_IMAGES),
            (POOR, wrong and misread and accuracy >= 1, MISREAD),
            (POOR, wrong, illegible),
            (POOR, alike, repetitive),
            (DOUBTFUL, accuracy < 1, illegible),
            (DOUBTFUL, diversity < DOUBTFUL_DIVERSITY, repetitive),
            (DOUBTFUL, scores.heldout < FEW_HELD_OUT or scores.accuracy is None, MORE_IMAGES),
            (DOUBTFUL, misread, MISREAD),
        )
        matches = ((state, advice) for state, applies, advice in rules if applies)
        judged.append(JudgedClass(label, scores, *next(matches, (GOOD, ""))))
    return judged


def advice_on(model: GenerativeModel) -> tuple[str, str]:
    """Advice where drawings are taken for another class, and where they repeat themselves."""
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


def too_few_held_out(held_out: Images) -> Iterator[str]:
    """A sentence that names the classes with too few held-out images to be called good."""
    if few := [held_out.class_names[n] for n in np.flatnonzero(held_out.counts < FEW_HELD_OUT)]:
        yield (
            f"Fewer than {FEW_HELD_OUT} are held out of {listed(few)}: the verdict on so few is *doubtful*, "
            "however good the drawings are. Add images, or raise `preprocess.holdout_fraction`."
        )
