"""How well a small classifier tells drawings from held-out images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from uneven import uneven

from cgan.evaluation import context_differences
from cgan.images import Images
from cgan.params.sections import EvaluateParams
from cgan.quality.conditions import Conditions
from cgan.quality.detectability import FOLDS, KEY, Filters, TwoSampleTest, fold_scores
from cgan.quality.estimates import Estimate
from cgan.quality.judge import Judge


class Repeater:
    """Real images in the drawings' place."""

    classes, seconds_per_drawing = 3, 0.0


def conditions(
    channels: int = 1, groups: bool = True, few: bool = False, samples: int = 400
) -> Conditions:
    """Of 56 × 9 images of three unequal, named classes, 8 × 12 pixels; a quarter is held out."""
    images = uneven(1 if few else 9, channels=channels)
    images = images if groups else replace(images, groups=None)
    train, held_out = images.split(0.25, seed=3)
    judge = Judge(3, channels, 2).eval()
    params = EvaluateParams(samples=samples, seed=5)
    return Conditions.of(judge, train, held_out, params, [Repeater()])  # type: ignore[list-item]


def other_real_images(of: Conditions) -> Tensor:
    """Unseen images of the classes to draw."""
    pool = uneven(20, channels=of.train.shape[0], seed=8)
    pixels, labels = pool.tensors.pixels, pool.tensors.labels
    members = [(labels == label).nonzero()[:, 0] for label in range(3)]
    turn = torch.arange(len(of.drawn_labels)) // 3
    rows = [
        members[label][turn[n] % len(members[label])]
        for n, label in enumerate(of.drawn_labels.tolist())
    ]
    return pixels[torch.stack(rows)]


def found(of: Conditions, drawn: Tensor) -> tuple[float, tuple[float, float]]:
    score = of.two_sample_test.score([drawn])[KEY]
    assert score.value is not None and score.interval is not None
    return score.value, score.interval


@pytest.mark.parametrize("channels", [1, 3])
def test_real_images_are_told_no_better_than_by_chance(channels: int) -> None:
    of = conditions(channels)
    value, (low, high) = found(of, other_real_images(of))
    assert low < 0.5 < high and 0.35 < value < 0.65
    real = of.two_sample_test.real
    assert real is not None and real.interval[0] < 0.5 < real.interval[1]


def white_corner(drawn: Tensor) -> Tensor:
    drawn[..., :2, :2] = 255
    return drawn


def white_pixel(drawn: Tensor) -> Tensor:
    drawn[..., 0, 0] = 255
    return drawn


def blurred(drawn: Tensor) -> Tensor:
    channels = drawn.shape[1]
    kernel = torch.tensor([0.1, 0.8, 0.1]).view(1, 1, 1, 3).expand(channels, 1, 1, 3)
    return torch.nn.functional.conv2d(drawn, kernel, padding=(0, 1), groups=channels)


def noisy(drawn: Tensor) -> Tensor:
    return drawn + 40 * torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1))


def brighter(drawn: Tensor) -> Tensor:
    return drawn + 30


@pytest.mark.parametrize("spoil", [white_corner, white_pixel, blurred, noisy, brighter])
@pytest.mark.parametrize("channels", [1, 3])
def test_drawings_that_are_spoilt_a_little_are_told(spoil: object, channels: int) -> None:
    of = conditions(channels)
    drawn = spoil(other_real_images(of).float())  # type: ignore[operator]
    value, (low, high) = found(of, drawn.clamp(0, 255).to(torch.uint8))
    assert value > 0.75 and low > 0.65 and high <= 1


def test_drawings_that_are_always_told_have_an_interval() -> None:
    of = conditions()
    value, (low, high) = found(
        of, torch.full((len(of.drawn_labels), 1, 8, 12), 200, dtype=torch.uint8)
    )
    assert value == 1 and 0.9 < low < 1 and high == 1


def test_several_sets_are_their_mean() -> None:
    of = conditions()
    real = other_real_images(of)
    bright = (real.float() + 12).clamp(0, 255).to(torch.uint8)
    both = of.two_sample_test.score([real, bright])[KEY]
    assert both.value == pytest.approx((found(of, real)[0] + found(of, bright)[0]) / 2)
    assert both.value == of.two_sample_test.score([bright, real])[KEY].value


def test_a_context_names_the_groups_whatever_their_numbers_and_only_where_there_are_some() -> None:
    of, alone = conditions(), conditions(groups=False)
    assert "held_out_groups" not in alone.context("")
    numbers = of.held_out.groups
    assert numbers is not None
    other = np.where(numbers == numbers.min(), numbers.max(), numbers)
    named = [
        replace(of, held_out=replace(of.held_out, groups=groups)).context("")
        for groups in (numbers, numbers.max() - numbers, other)
    ]
    assert named[0] == named[1] == of.context("")
    assert {*context_differences(named[0], named[2])} == {"held_out_groups"}


def test_the_value_is_the_same_whatever_the_number_of_drawings() -> None:
    """Runs with other numbers of drawings are compared by it."""
    fewer, more = conditions(samples=300), conditions(samples=600)
    sizes = [each.context("")["distance_images"] for each in (fewer, more)]
    assert sizes[0] < sizes[1]
    assert fewer.evaluation_set.block_size == more.evaluation_set.block_size
    assert torch.equal(fewer.two_sample_test.filters.weights, more.two_sample_test.filters.weights)
    real = [each.two_sample_test.real for each in (fewer, more)]
    assert real[0] and real[1] and real[0].value == real[1].value
    drawn = noisy(other_real_images(more).float()).clamp(0, 255).to(torch.uint8)
    values = [found(each, drawn[: len(each.drawn_labels)])[0] for each in (fewer, more)]
    assert values[0] == values[1]


def test_both_sides_have_the_same_classes_and_groups_stay_together() -> None:
    of = conditions()
    test = of.two_sample_test
    chosen = of.drawn_labels[test.drawn_rows]
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(chosen.bincount(), of.evaluation_set.heldout_counts)
    for unit in range(test.unit_count):
        assert len(test.folds[test.units == unit].unique()) == 1
    assert test.unit_count < len(chosen) and len(test.folds.unique()) == FOLDS
    # The held-out images are in that order, too.
    rows = of.held_out.tensors.labels.argsort(stable=True)
    every = Filters.of(of.train.tensors.pixels, of.params.seed).features(of.held_out.tensors.pixels)
    assert torch.allclose(every[rows].sum(dim=0), test.heldout.sum(dim=0))
    alone = conditions(groups=False).two_sample_test
    assert alone.unit_count == len(alone.folds)


def test_copies_of_held_out_images_in_a_group_widen_the_interval() -> None:
    """Six equal photographs of each thing say no more than one."""
    single = conditions(groups=False)
    rows = np.arange(len(single.held_out)).repeat(6)
    held_out = single.held_out.at(rows)
    grouped = Images(held_out.pixels, held_out.labels, held_out.class_names, rows)
    params, judge = single.params, single.judge
    widths = []
    for images in (replace(grouped, groups=None), grouped):
        of = Conditions.of(judge, single.train, images, params, [Repeater()])  # type: ignore[list-item]
        estimate = of.two_sample_test.real
        assert estimate is not None
        widths.append(float(estimate.replicates.std()))
    assert widths[1] > 1.2 * widths[0]


def test_of_too_few_images_there_is_no_score() -> None:
    of = conditions(few=True)
    assert len(of.held_out) < 20
    assert of.two_sample_test.score([other_real_images(of)]) == {}


def test_the_classifier_is_ridge_regression_of_those_that_are_not_tested() -> None:
    random = torch.Generator().manual_seed(2)
    real, drawn = torch.randn(2, 40, 7, generator=random, dtype=torch.float64)
    drawn[:, 3] += 2
    is_tested = torch.arange(40) % 4 == 0
    of_real, of_drawn = fold_scores(real, drawn, is_tested)
    assert of_drawn.mean() > of_real.mean() + 0.5
    changed = real.clone()
    changed[is_tested] += 5  # what is tested teaches nothing
    assert torch.equal(fold_scores(changed, drawn, is_tested)[1], of_drawn)
    fitted = torch.cat([real[~is_tested], drawn[~is_tested]])
    fitted = (fitted - fitted.mean(dim=0)) / fitted.std(dim=0)
    target = np.repeat([-1.0, 1.0], 30)
    rows = np.concatenate([fitted.numpy(), np.sqrt(0.03 * 60) * np.eye(7)])
    expected = np.linalg.lstsq(rows, np.concatenate([target, np.zeros(7)]), rcond=None)[0]
    spread = torch.cat([real[~is_tested], drawn[~is_tested]]).std(dim=0).numpy()
    between = (of_drawn - of_real).numpy()
    assert between == pytest.approx(((drawn - real)[is_tested].numpy() / spread) @ expected)


def test_equal_seeds_give_equal_numbers() -> None:
    first, second = (conditions().two_sample_test.real for _ in range(2))
    assert isinstance(first, Estimate) and isinstance(second, Estimate)
    assert first.value == second.value and torch.equal(first.replicates, second.replicates)


def test_images_without_contrast_and_large_ones_are_no_error() -> None:
    random = torch.Generator().manual_seed(3)
    blank = torch.full((9, 1, 8, 12), 7, dtype=torch.uint8)
    assert Filters.of(blank, 1).features(blank).isfinite().all()
    large = torch.randint(256, (5, 3, 250, 131), generator=random).to(torch.uint8)
    features = Filters.of(large, 1).features(large)
    assert features.shape == (5, 768) and features.isfinite().all() and features.std(dim=0).all()


def test_a_two_sample_test_needs_five_groups() -> None:
    of = conditions()
    one = replace(of.held_out, groups=np.arange(len(of.held_out)) % 4)
    assert not TwoSampleTest(of.evaluation_set, of.in_drawings_place, of.train, one).is_possible
