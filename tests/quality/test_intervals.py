"""Intervals of metrics and of differences, against published or closed forms."""

from dataclasses import replace

import pytest

from cgan.quality.comparison import compare
from cgan.quality.evaluate import METRICS
from cgan.quality.evaluation import ClassScores, Evaluation, Score
from cgan.quality.intervals import critical_t, difference_of_means
from cgan.quality.proportions import difference_interval, proportion_interval


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """56 of 70 and 48 of 80: method 10 of the paper, table II, case (a): 0.0524 to 0.3339."""
    a, b = ((part / of, proportion_interval(part / of, of)) for part, of in ((48, 80), (56, 70)))
    assert difference_interval(*a, *b) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_contexts_differ_in_what_a_metric_depends_on() -> None:
    scores = {key: Score(**metric.facts, value=0.5) for key, metric in METRICS.items()}
    context = {"reference_images": 3, "generator_digest": "a", "seed": 1, "drawn_images": 9}
    more = {"generator_digest": "b", "drawn_images": 8, "distance_images": 2, "neighbour_images": 3}
    a, *others = (
        Evaluation(metrics=scores, context=n) for n in (context, context | more, {"seed": 2})
    )
    b, c = (compare(a, other) for other in others)
    assert c.conditions == {"seed": (1, 2), "reference_images": (3, None)} and not c.changes
    unlike = {each.a.key for each in b.changes if each.verdict == "not compared"}
    assert unlike == {"fid_judge", "coverage", "recall"} and len(b.changes) == len(METRICS)


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
@pytest.mark.parametrize(
    ("a", "b", "freedom", "variance"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, 4.5, 5.5], 8, 1.0),
        # Of unequal variances by Welch and Satterthwaite.
        ([0.2, 0.3, 0.25], [0.11, 0.12, 0.10], 2.1597, 0.0026 / 3),
        # Of one side alone: a sampler's seeds beside a training's.
        ([1.0, 1.0], [1.0, 3.0], 1, 1.0),
        ([1.0, 1.0], [2.0, 2.0], 1, 0.0),
    ],
)
def test_the_interval_of_a_difference_of_means_is_welchs(
    a: list[float], b: list[float], freedom: float, variance: float
) -> None:
    change, interval = difference_of_means(a, b)
    assert change == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
    reach = critical_t(freedom) * variance**0.5
    assert interval == pytest.approx((change - reach, change + reach), rel=1e-4)


def test_falling_short_is_bonferronis_of_wilsons() -> None:
    """Of two classes z is 2.2414, for which the upper end of 85 of 100 is .9136. Of very many real images all
    are right; the last class has no drawing."""
    confusion = [[85, 15, 0], [0, 100, 0], [0, 0, 0]]
    classes = [ClassScores(heldout=10**9, real_accuracy=1.0)] * 3
    evaluation = Evaluation(metrics={}, classes=classes, confusion=confusion)
    for limit, short in ((0.9130, []), (0.9142, [0])):
        assert evaluation.classes_below_real(limit) == short
    # Of four held-out images all are right: the middle of Wilson's interval is .7551.
    few = replace(evaluation, classes=[replace(classes[0], heldout=4)] * 3)
    assert few.classes_below_real(1.20) == [] and few.classes_below_real(1.22) == [0]
