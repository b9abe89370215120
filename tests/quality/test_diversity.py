"""How diverse the drawings of a class are: what real images get, and what repeated drawings."""

import itertools

import pytest
import torch
from conftest import sample_digits, trifling
from torch import Tensor

from cgan.data.images import Images
from cgan.quality.diversity import diversity_by_class, diversity_score, nearest_distance
from cgan.quality.intervals import Estimate

RANDOM = torch.Generator().manual_seed(0)
# 500 images of each class.
DIGITS = [of[torch.randperm(500, generator=RANDOM)] for of in sample_digits()[0].split(500)]


def of_one_class(drawn: Tensor, real: Tensor) -> Estimate:
    labels = torch.zeros(len(drawn), dtype=torch.int64)
    [found] = diversity_by_class(drawn, labels, Images(real, torch.zeros(len(real)).long()))
    assert found
    return found


@pytest.mark.parametrize("others", [1, 3, 5])
def test_the_nearest_distance_is_the_mean_over_all_subsets(others: int) -> None:
    points = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    apart = torch.cdist(points, points)

    def by_hand(rows: list[int]) -> float:
        nearest = [
            min(float(apart[row, other]) for other in subset)
            for row in rows
            for subset in itertools.combinations([other for other in rows if other != row], others)
        ]
        return sum(nearest) / len(nearest)

    value, left_out = nearest_distance(apart, others)
    assert value == pytest.approx(by_hand(list(range(7))))
    without = [by_hand([row for row in range(7) if row != image]) for image in range(7)]
    assert left_out.tolist() == pytest.approx(without)


@pytest.mark.parametrize(("count", "reals"), [(100, 20), (60, 100)])
def test_other_real_images_are_as_diverse(count: int, reals: int) -> None:
    """Forty disjoint pairs of samples, also of unequal size: a mean of 1, and intervals that hold it."""
    random, found = torch.Generator().manual_seed(1), []
    for images in DIGITS:
        for _ in range(4):
            order = torch.randperm(500, generator=random)
            found.append(of_one_class(images[order[:count]], images[order[count : count + reals]]))
    fractions = torch.tensor([each.value for each in found])
    assert fractions.mean().item() == pytest.approx(1, abs=3 * fractions.std().item() / 40**0.5)
    assert sum(each.interval[1] < 1 for each in found) <= 2
    assert sum(each.interval[0] > 1 for each in found) <= 4
    typical = sum(each.interval[1] - each.interval[0] for each in found) / 4 / len(found)
    assert typical == pytest.approx(fractions.std().item(), rel=0.3)


@pytest.mark.parametrize(("pictures", "at_most"), [(10, 0.45), (50, 0.85)])
def test_few_pictures_repeated_are_seen_behind_trifles(pictures: int, at_most: float) -> None:
    """150 drawings of so many pictures, each a pixel aside, brighter or darker, and noisy."""
    random = torch.Generator().manual_seed(2)
    for images in (DIGITS[1], DIGITS[9]):
        drawn = images[torch.randint(pictures, (150,), generator=random)]
        found, trifles = (of_one_class(each, images[400:]) for each in (drawn, trifling(drawn)))
        assert found.value <= trifles.value < at_most
        assert trifles.interval[1] < 0.92


def test_a_class_is_measured_by_itself_if_it_has_images() -> None:
    """Class 1 repeats ten pictures; 2 has three real images, 3 a thousand times the same; 4 no drawing."""
    real = [DIGITS[0][:100], DIGITS[1][:60], DIGITS[2][:3], DIGITS[3][:1].repeat(9, 1, 1, 1)]
    labels = torch.arange(5).repeat_interleave(torch.tensor([100, 60, 3, 9, 50]))
    training = Images(torch.cat([*real, DIGITS[4][:50]]), labels)
    repeated_pictures = DIGITS[1][60:70].repeat(5, 1, 1, 1)
    drawn = [DIGITS[0][100:150], repeated_pictures, DIGITS[2][:50], DIGITS[3][:50]]
    asked = torch.arange(4).repeat_interleave(50)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    fine, repeated, *others = diversity_by_class(torch.cat(drawn)[order], asked[order], training)
    assert fine and fine.interval[0] < 1 < fine.interval[1]
    assert repeated and repeated.interval[1] < 0.3
    assert others == [None] * 3


@pytest.mark.parametrize("beside_a_good_class", [False, True])
def test_a_class_of_one_picture_has_no_diversity(beside_a_good_class: bool) -> None:
    drawn, labels = DIGITS[1][:1].repeat(100, 1, 1, 1), torch.zeros(100).long()
    real, real_labels = DIGITS[1][:60].clone(), torch.zeros(60).long()
    if beside_a_good_class:
        drawn[50:], labels[50:] = DIGITS[2][:50], 1
        real[30:], real_labels[30:] = DIGITS[2][60:90], 1
    found = diversity_by_class(drawn, labels, Images(real, real_labels))
    assert found[0] and found[0].value < 0.01 and found[0].interval[1] < 0.01
    score = diversity_score(found)
    assert score and score.value == found[0].value and score.interval is None
    assert max(map(abs, score.deviations)) < 0.01, "as the class's own"
    assert score.real is not None and 0.5 < score.real <= 1 + 1e-9


def test_a_class_of_plain_real_images_is_not_measured() -> None:
    """Nor is one of a single picture that is brighter and darker."""
    grey = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
    darker = (DIGITS[1][:1] * torch.linspace(0.9, 1, 60)[:, None, None, None]).to(torch.uint8)
    for real in (grey, darker):
        training, asked = Images(real, torch.zeros(60).long()), torch.zeros(50).long()
        assert diversity_by_class(DIGITS[1][:50], asked, training) == [None]
    assert diversity_score([None]) is None


def test_an_image_that_the_data_hold_twice_counts_once() -> None:
    real = DIGITS[4][50:150]
    once, twice = (of_one_class(DIGITS[4][:50], real.repeat(n, 1, 1, 1)) for n in (1, 2))
    assert once.value == twice.value


def test_of_many_images_some_are_taken_at_random() -> None:
    alike = (DIGITS[1][:1] * torch.linspace(0.1, 1, 250)[:, None, None, None]).to(torch.uint8)
    others = DIGITS[1][100:300].clone()
    others[:, :, 0, 0] = 255  # sorted, they come last
    assert of_one_class(DIGITS[1][:50], torch.cat([alike, others])).value < 4
