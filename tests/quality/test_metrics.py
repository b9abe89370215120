"""Metrics against other implementations, closed forms and worked examples, and the report of them."""

import math
import re
import warnings
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, plain, uneven
from torch import Tensor

from cgan.base.errors import DataError
from cgan.base.progress import silent
from cgan.data.images import Images
from cgan.models.hardware import choose_hardware
from cgan.models.networks import Architecture, build_generator
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality import intervals, likeness
from cgan.quality import judge as judges
from cgan.quality.accuracies import train_on_drawings
from cgan.quality.conditions import MAX_BLOCKS, Conditions, labels_to_draw, rows_in_class_mix
from cgan.quality.diversity import diversity_by_class
from cgan.quality.evaluate import METRICS, measure
from cgan.quality.evaluation import ClassScores, Evaluation, Metric, Score
from cgan.quality.feature_metrics import NEIGHBOURS, neighbour_shares
from cgan.quality.judge import (
    accuracy_of_predictions,
    frechet_distance,
    judge_accuracy,
    predict,
    train_judge,
)
from cgan.quality.likeness import find_near_copies
from cgan.quality.proportions import mean_share, wilson_interval
from cgan.training.monitoring import deviation_by_class

PARAMS = EvaluateParams(samples=100, gan_train_kimg=0.0, seed=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicates and copies are not what is tested here, and take most of the time of an evaluation."""
    monkeypatch.setattr(intervals, "REPLICATES", 20)
    monkeypatch.setattr(likeness, "MAX_COMPARED", 8)
    monkeypatch.setattr(judges, "WIDTH", 8)


def test_accuracies_are_of_the_class_asked_for() -> None:
    """A row of the confusion for each class asked for, a column for each judged."""
    asked, judged = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 2, 1, 0, 2])
    found = accuracy_of_predictions(judged, asked, 4)
    assert found.confusion.tolist() == [[2, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.by_class == [2 / 3, 0.5, 1.0, None], "the last was never asked for"
    assert found.value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3), "classes count alike"


def test_the_deviation_of_a_class_is_that_of_all_features() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, 4.0], [7.0, 7.0], [7.0, 7.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    # Class 0: variances 2 and 8. Class 2 has one image, class 3 none.
    assert deviation_by_class(features, labels, 4) == pytest.approx([math.sqrt(10), 0, 0, 0])


def test_an_interval_of_a_mean_of_classes_holds_the_truth() -> None:
    """Also where a class has three images: 300 times, the true shares are .95, .9 and .6."""
    share, interval = mean_share([(4, 6)])
    assert share == 4 / 6 and interval == pytest.approx(wilson_interval(4, 6)), "of one, Wilson's"
    random = torch.Generator().manual_seed(1)
    parts = ((0.95, 200), (0.9, 30), (0.6, 3))
    held = 0
    for _ in range(300):
        counts = [(int((torch.rand(n, generator=random) < p).sum()), n) for p, n in parts]
        low, high = mean_share(counts)[1]
        held += low <= (0.95 + 0.9 + 0.6) / 3 <= high
    assert 0.92 <= held / 300 < 1


def test_a_mix_is_as_large_as_the_rarest_class_allows() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 10)
    rows = rows_in_class_mix(labels, torch.tensor([8, 1, 0]))
    assert torch.bincount(labels[rows], minlength=3).tolist() == [10, 1, 0]
    assert sorted(rows.tolist()) == [*range(10), 10], "the first of each class"
    assert 3 <= rows.tolist().index(10) <= 7, "in the middle, not at the end"
    in_turn = torch.arange(30) % 3
    assert rows_in_class_mix(in_turn, torch.tensor([5, 5, 5])).tolist() == list(range(30))


def test_wilson_interval_has_published_values() -> None:
    """Newcombe 1998 (Statistics in Medicine 17), table I, method 3."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}
    for shares, interval in (published | {(0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)}).items():
        assert wilson_interval(*shares) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(("dimension", "counts"), [(1, (50, 70)), (12, (300, 40)), (6, (130, 120))])
def test_the_frechet_distance_is_that_of_torchmetrics(
    dimension: int, counts: tuple[int, int]
) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = torch.nn.Identity()
    features.num_features = dimension  # type: ignore[assignment]  # as torchmetrics asks for it
    random = torch.Generator().manual_seed(0)
    real, drawn = (n + torch.randn(counts[n], dimension, generator=random) for n in (0, 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save all extracted features")
        frechet = FrechetInceptionDistance(features)
    frechet.update(real.double(), real=True)
    frechet.update(drawn.double(), real=False)
    assert frechet_distance(real, drawn) == pytest.approx(float(frechet.compute()), rel=1e-10)


def test_neighbours_of_points_on_a_line_are_as_by_hand() -> None:
    # Real 0 1 2 3 (radii to the 1st neighbour: 1 each), drawn 0.5 1.5 9 (radii 1 1 7.5).
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert neighbour_shares(real, torch.tensor([[0.5], [1.5], [9.0]]), k=1).tolist() == [
        1.0,  # 0 and 1 near 0.5, 2 near 1.5, and 3 within 7.5 of 9
        3 / 4,  # the ball of 3 is empty
    ]
    # Each point's fifth neighbour is three steps away. So a drawing just to the right of a point is in
    # the balls of that point, of two to its left and of three to its right.
    line = torch.arange(2100.0)[:, None] * 10
    _, coverage = neighbour_shares(line, line[50:1150] + 0.5)
    assert coverage == pytest.approx(1105 / 2100)  # from 48 to 1152
    edge = neighbour_shares(torch.tensor([[4.0], [9.0]]), torch.tensor([[-1.0], [14.0]]), k=1)
    assert edge[1] == 0, "each is 5 away"


# -- The report ----------------------------------------------------------------------------------------


def tiny_data(per_class: int, seed: int) -> Images:
    """Sorted by class, as a CSV can be."""
    data = plain(uneven(counts=[per_class] * 3, seed=seed, height=8, width=8))
    return data.at(np.argsort(data.labels, kind="stable"))


def conditions_of(train: Images, held_out: Images) -> Conditions:
    """Of a generator of no weight and of a judge that has learnt these classes."""
    generator = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4))
    judge = train_judge(train, JudgeParams(total_kimg=6.0, seed=1), CPU)
    return Conditions.prepare(judge, train, held_out, PARAMS, [generator])


def drawings(seed: int) -> Tensor:
    return uneven(counts=[100] * 3, seed=seed, height=8, width=8).tensors.pixels


def test_gan_train_is_the_judges_own_recipe_on_drawings() -> None:
    training = tiny_data(40, 0)
    hardware, recipe = choose_hardware("auto", "auto"), JudgeParams(total_kimg=0.5, seed=1)
    judge = train_judge(training, recipe, hardware)
    # The training images in the drawings' place: the second judge is the first.
    same, other = (train_on_drawings(training, judge, n, silent).head.weight for n in (None, 0.016))
    assert torch.equal(same, judge.head.weight) and not torch.equal(same, other)


def test_six_held_out_images_are_enough_for_every_metric() -> None:
    train, held_out = tiny_data(40, 0), tiny_data(2, 1)
    metrics = measure(conditions_of(train, held_out), drawings(0)).metrics
    for found in (metrics["recall"], metrics["coverage"]):
        assert found.interval and found.value is not None
        assert found.interval[0] <= found.value <= found.interval[1] > found.interval[0]
    with pytest.raises(DataError, match=r"larger fraction"):
        conditions_of(train, held_out.at(range(NEIGHBOURS)))


@pytest.mark.parametrize(("per_class", "held"), [(12, 4), (120, 120)])
def test_each_number_is_of_equally_many_of_the_sets_it_names(per_class: int, held: int) -> None:
    """With more drawings than real images, and with fewer than were held out."""
    training, heldout, drawn = tiny_data(per_class, 0), tiny_data(held, 1), drawings(5)
    conditions = conditions_of(training, heldout)
    judge, asked = conditions.judge, labels_to_draw(3, PARAMS)
    count = min(len(asked), len(training))
    evaluation = measure(conditions, drawn)
    metrics, rows = evaluation.metrics, evaluation.classes
    equal_mix = torch.ones(3, dtype=torch.int64)

    random = torch.Generator().manual_seed(PARAMS.seed)
    order = torch.randperm(len(training), generator=random)
    some = order[rows_in_class_mix(training.tensors.labels[order], equal_mix)][:count]
    images = (heldout.tensors.pixels, training.tensors.pixels[some], drawn)
    real, trained, seen = (predict(judge, each) for each in images)

    right = metrics["conditional_accuracy"]
    of_drawings = accuracy_of_predictions(seen.labels, asked, 3)
    of_heldout = judge_accuracy(judge, heldout)
    assert right.value == pytest.approx((seen.labels == asked).double().mean().item())
    assert (right.real, right.interval) == (of_heldout.value, of_drawings.interval)
    assert [row.real_accuracy for row in rows] == of_heldout.by_class
    assert evaluation.confusion == of_drawings.confusion.tolist()
    worst = min(share for share in of_drawings.by_class if share is not None)
    assert metrics["worst_class_accuracy"].value == pytest.approx(worst)

    fid, distance = metrics["fid_judge"], frechet_distance(real.features, seen.features[:count])
    assert fid.value == pytest.approx(distance, rel=1e-5)
    bias = {key: each.value for key, each in conditions.bias.items()}
    of_real = frechet_distance(real.features, trained.features) - bias.get("fid_judge", 0.0)
    assert fid.real == pytest.approx(of_real, abs=1e-5)
    assert fid.value is not None and fid.interval and fid.interval[0] < fid.value < fid.interval[1]
    equal = min(count, len(heldout))
    shuffled = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(PARAMS.seed))
    block = shuffled[rows_in_class_mix(heldout.tensors.labels[shuffled], equal_mix)][:equal]
    for n, key in enumerate(("recall", "coverage")):
        found, of_training = (
            fmean(
                neighbour_shares(real.features[block], part)[n].item()
                for part in features[: len(features) // equal * equal].split(equal)[:MAX_BLOCKS]
            )
            for features in (seen.features, trained.features)
        )
        assert metrics[key].value == pytest.approx(found)
        assert metrics[key].real == pytest.approx(min(1, of_training - bias.get(key, 0.0)))
    copies = find_near_copies(drawn, asked, training, heldout, PARAMS.seed)
    assert len(copies.is_copy) == 30 and metrics["copies"].real == copies.real
    assert metrics["copies"].value == copies.is_copy.double().mean()
    diverse = [each for each in diversity_by_class(drawn, asked, training) if each]
    fractions = [(each.value, each.interval) for each in diverse]
    assert [(row.diversity, row.diversity_interval) for row in rows] == fractions
    assert metrics["worst_class_diversity"].value == min(fractions)[0]
    assert 0.5 < (metrics["worst_class_diversity"].real or 0) < 1, "the least of three, by chance"


def test_the_report_takes_each_number_from_its_row() -> None:
    about = METRICS["fid_judge"].facts
    distance = Score(**about, value=0.1 + 1e-7, real=0.01, interval=(0.05, 0.15))
    unknown = Score(name="recall", value=math.nan)
    row = ClassScores(heldout=7, accuracy=0.93, real_accuracy=1.0, diversity=0.72)
    scores = {"fid_judge": distance, "recall": unknown, "copies": Score()}
    evaluation = Evaluation(metrics=scores, classes=[row], confusion=[[100]], class_names=["<b>"])
    assert evaluation.values() == {"fid_judge": 0.1, "recall": pytest.approx(math.nan, nan_ok=True)}
    metrics, classes = (table.as_rows()[1:] for table in evaluation.report().tables)
    of_distance = ["Fréchet distance", "0.100", "0.0500 to 0.150", "0.0100", "lower"]
    assert metrics == [[*of_distance, about["meaning"]], ["recall", "–", "", "", "higher", ""]]
    assert classes == [["<b>", "93.0 %", "100.0 %", "72.0 %", "7"]]
    # By it the gate, sweeps and comparisons decide what is better.
    lower = {key for key, metric in METRICS.items() if metric.better == "lower"}
    assert lower == {"fid_judge", "copies"}


def test_a_metric_s_interval_is_within_what_it_can_be() -> None:
    wide: Any = {"measure": lambda _: Score(value=0.5, interval=(-0.02, 1.01))}
    drawn: Any = None  # is not asked
    assert Metric(kind="share", **wide).score(drawn).interval == (0, 1)
    assert Metric(kind="number", **wide).score(drawn).interval == (0, 1.01)


def class_of(right: int, real: int, diversity: float, reach: float = 0.06) -> ClassScores:
    """Of 1,000 drawings and 40 held-out images."""
    return ClassScores(
        heldout=40,
        accuracy=right / 1000,
        real_accuracy=real / 40,
        diversity=diversity,
        diversity_interval=(diversity - reach, diversity + reach),
    )


def weakest_of(*classes: ClassScores) -> list[tuple[int, str]]:
    confusion = (1000 * np.eye(len(classes), dtype=int)).tolist()
    return Evaluation(metrics={}, classes=classes, confusion=confusion).weakest_classes()


def test_the_weakest_class_is_behind_real_images_at_near_ends() -> None:
    """Of two classes, 2.2414 standard deviations from each value."""
    fine = class_of(950, 38, 1.0)
    assert weakest_of(fine, fine) == []
    [(label, words)] = weakest_of(fine, class_of(950, 38, 0.72))
    assert label == 1 and words == "72 % as diverse as real images"
    further = 2.241403 / 1.959964
    for diversity, found in ((0.999, 1), (1.001, 0)):
        assert len(weakest_of(fine, class_of(950, 38, diversity - 0.06 * further))) == found
    # Of 40 real images all are right, at least .8885 of all; of 862 in 1,000 drawings at most .8845.
    for right, found in ((862, 1), (872, 0)):
        assert len(weakest_of(fine, class_of(right, 40, 1.0))) == found
    both = weakest_of(class_of(800, 40, 0.95, 0.0), class_of(860, 40, 0.7, 0.0))
    assert [label for label, _ in both] == [1, 0], "by what is further behind"
    assert both[1][1] == "80.0 % right, its 40 held-out images 100.0 %"


@pytest.mark.parametrize("classes", [10, 100])
def test_of_equal_classes_one_is_called_weak_once_in_twenty(classes: int) -> None:
    """At 95 % for each class: 40 of 200 evaluations of ten, 180 of a hundred."""
    random = np.random.default_rng(3)

    def found(weak: int = 0) -> list[tuple[int, str]]:
        right, real = random.binomial(1000, 0.95, classes), random.binomial(40, 0.95, classes)
        right[1] -= weak
        diversity = random.normal(1, 0.03, classes)
        return weakest_of(*map(class_of, right.tolist(), real.tolist(), diversity.tolist()))

    assert 0 < sum(bool(found()) for _ in range(200)) <= 15
    assert all(found(weak=600)[0][0] == 1 for _ in range(20))


SURE, WEAK = Score(value=0.91, real=0.92), Score(value=0.828, real=0.689)
RECALL, COPIES = Score(value=0.32, real=0.42), Score(value=0.015, real=0.01)


@pytest.mark.parametrize(
    ("accuracy", "others", "numbers"),
    [
        (SURE, {"recall": RECALL, "copies": COPIES}, [91.0, 92.0, 32, 42, 1.5, 1.0, 68]),
        (SURE, {"copies": Score(value=0, real=0)}, [91.0, 92.0, 68]),
        (replace(SURE, real_interval=(0.7, 0.97)), {}, [91.0, 92.0, 70, 97, 68]),
        # A weak judge says nothing of the drawings.
        (WEAK, {"recall": RECALL, "gan_train_accuracy": SURE}, [91, 92, 68.9, 90, 68]),
    ],
)
def test_a_line_of_quality_has_what_real_images_get(
    accuracy: Score, others: dict[str, Score], numbers: list[float]
) -> None:
    evaluation = Evaluation(metrics={"conditional_accuracy": accuracy, **others})
    words = evaluation.report(training_s=68.4).sentence
    assert [float(number) for number in re.findall(r"\d+(?:\.\d+)?", words)] == numbers
    assert ("cannot tell" in words) is ("odd ones" in words) is (accuracy is WEAK)
